//! The table of optimizers.

use super::rule::{Over, Range, Rule, Scope, Setting, Span};
use crate::expr::Expr;

/// Every optimizer.
pub const RULES: &[&Rule] = &[&SGD, &ADAM, &ADAMW, &LAPROP, &LION, &ADAFACTOR];

const BETA1: Setting = setting("beta1", 0.9, Range::Decay, "Decay of the mean of gradients.");
const BETA2: Setting = setting("beta2", 0.999, Range::Decay, "Decay of the mean of squared gradients.");
const EPSILON: Setting = setting("epsilon", 1e-8, Range::NotNegative, "Added to the denominator.");
const DECAY: Setting =
    setting("weight_decay", 0.0, Range::NotNegative, "How much of a parameter is added to its gradient.");
const DECOUPLED: Setting = setting(
    "weight_decay",
    0.0,
    Range::NotNegative,
    "How much of a parameter is taken off it in a step, times the learning rate.",
);

const fn setting(name: &'static str, default: f32, range: Range, about: &'static str) -> Setting {
    Setting { name, default, range, about }
}

const fn by_default(setting: Setting, default: f32) -> Setting {
    Setting { default, ..setting }
}

/// (1 − keep) · new + keep · old.
fn moved(old: Expr, new: Expr, keep: Expr) -> Expr {
    keep.clone() * old + (1.0 - keep) * new
}

/// p after decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101), if used.
fn decayed(x: &Scope<'_>, decay: Expr) -> Expr {
    if x.uses("weight_decay") { x.parameter() * (1.0 - x.rate() * decay) } else { x.parameter() }
}

/// The gradient, plus that of ½·decay·p² if weight decay is used.
fn regularised(x: &Scope<'_>, decay: Expr) -> Expr {
    if x.uses("weight_decay") { x.gradient() + decay * x.parameter() } else { x.gradient() }
}

pub static SGD: Rule = Rule {
    name: "sgd",
    about: "Stochastic gradient descent: p −= lr·g. With momentum (Polyak 1964) b = momentum·b + g and p −= lr·b, or by \
            Nesterov's rule p −= lr·(g + momentum·b), as in Sutskever et al. 2013.",
    rate: 1e-2,
    settings: &[
        setting("momentum", 0.0, Range::Decay, "How much of the last step's direction is kept."),
        setting(
            "nesterov",
            0.0,
            Range::Switch,
            "1: the direction after this step's gradient, by Nesterov's rule.",
        ),
        DECAY,
    ],
    update: |x| {
        let [momentum, nesterov, decay] = x.settings();
        let g = regularised(x, decay);
        if !x.uses("momentum") {
            return x.parameter() - x.rate() * g;
        }
        let old = x.state("momentum_buffer", Span::Element, 0.0);
        let b = x.becomes(old.clone(), momentum.clone() * old + g.clone());
        let direction = if x.uses("nesterov") { g + nesterov * momentum * b } else { b };
        x.parameter() - x.rate() * direction
    },
};

/// Adam's step from a parameter value, for a gradient.
fn adam(x: &mut Scope<'_>, from: Expr, g: Expr) -> Expr {
    let [beta1, beta2, epsilon] = x.settings();
    let (m, v) = (x.state("exp_avg", Span::Element, 0.0), x.state("exp_avg_sq", Span::Element, 0.0));
    let m = x.becomes(m.clone(), moved(m, g.clone(), beta1.clone()));
    let v = x.becomes(v.clone(), moved(v, g.clone() * g, beta2.clone()));
    // √(v / (1 − β₂ᵗ)), with the second factor computed once per step
    let root = v.sqrt() * (1.0 - beta2.pow(x.step())).rsqrt();
    from - (x.rate() / (1.0 - beta1.pow(x.step()))) * m / (root + epsilon)
}

pub static ADAM: Rule = Rule {
    name: "adam",
    about: "Adam: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.",
    rate: 1e-3,
    settings: &[BETA1, BETA2, EPSILON, DECAY],
    update: |x| {
        let [_, _, _, decay] = x.settings();
        let g = regularised(x, decay);
        let p = x.parameter();
        adam(x, p, g)
    },
};

pub static ADAMW: Rule = Rule {
    name: "adamw",
    about: "Adam with decoupled weight decay: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.",
    rate: 1e-3,
    settings: &[BETA1, BETA2, EPSILON, by_default(DECOUPLED, 0.01)],
    update: |x| {
        let [_, _, _, decay] = x.settings();
        let (p, g) = (decayed(x, decay), x.gradient());
        adam(x, p, g)
    },
};

pub static LAPROP: Rule = Rule {
    name: "laprop",
    about: "LaProp: Ziyin, Wang & Ueda 2020, arXiv:2002.04839; gradients are normalised before they are averaged. Weight decay \
            takes its part off after the step, whatever the learning rate, as in the authors' code.",
    rate: 4e-4,
    settings: &[
        BETA1,
        BETA2,
        by_default(EPSILON, 1e-15),
        setting(
            "weight_decay",
            0.0,
            Range::NotNegative,
            "How much of a parameter is taken off it after each step.",
        ),
    ],
    update: |x| {
        let [beta1, beta2, epsilon, decay] = x.settings();
        let g = x.gradient();
        let (m, v) = (x.state("exp_avg", Span::Element, 0.0), x.state("exp_avg_sq", Span::Element, 0.0));
        let v = x.becomes(v.clone(), moved(v, g.clone() * g.clone(), beta2.clone()));
        let u = g / (v.sqrt() * (1.0 - beta2.pow(x.step())).rsqrt() + epsilon);
        let m = x.becomes(m.clone(), beta1.clone() * m + ((1.0 - beta1.clone()) * x.rate()) * u);
        let p = x.parameter() - (1.0 / (1.0 - beta1.pow(x.step()))) * m;
        if x.uses("weight_decay") { p * (1.0 - decay) } else { p }
    },
};

pub static LION: Rule = Rule {
    name: "lion",
    about: "Lion: Chen et al. 2023, arXiv:2302.06675, algorithm 2.",
    rate: 1e-4,
    settings: &[BETA1, by_default(BETA2, 0.99), DECOUPLED],
    update: |x| {
        let [beta1, beta2, decay] = x.settings();
        let old = x.state("exp_avg", Span::Element, 0.0);
        let direction = moved(old.clone(), x.gradient(), beta1).sign();
        let next = moved(old.clone(), x.gradient(), beta2);
        x.becomes(old, next);
        decayed(x, decay) - x.rate() * direction
    },
};

pub static ADAFACTOR: Rule = Rule {
    name: "adafactor",
    about: "Adafactor: Shazeer & Stern 2018, arXiv:1804.04235, as PyTorch has it: of a matrix's squared gradients only the means \
            of rows and of columns are kept; steps are relative to the parameter's size.",
    rate: 1e-2,
    settings: &[
        setting(
            "beta2_decay",
            -0.8,
            Range::NotPositive,
            "Squared gradients of step t count tᵈ in their mean.",
        ),
        setting(
            "epsilon1",
            f32::EPSILON,
            Range::Positive,
            "Bounds the mean of squared gradients from below, squared.",
        ),
        setting("epsilon2", 1e-3, Range::NotNegative, "Bounds the parameter's size from below."),
        setting(
            "clip",
            1.0,
            Range::Positive,
            "Root mean square of an update from which on it is made smaller.",
        ),
        DECOUPLED,
    ],
    update: |x| {
        let [beta2_decay, epsilon1, epsilon2, clip, decay] = x.settings();
        let keep = 1.0 - x.step().pow(beta2_decay);
        let (p, g) = (x.parameter(), x.gradient());
        let square = g.clone() * g.clone();
        let variance = if x.is_matrix() {
            let (row, column) = (x.state("row_var", Span::Row, 0.0), x.state("col_var", Span::Column, 0.0));
            let of_row = x.mean(square.clone(), Over::Columns);
            let of_column = x.mean(square, Over::Rows);
            let row = x.becomes(row.clone(), moved(row, of_row, keep.clone()));
            let column = x.becomes(column.clone(), moved(column, of_column, keep));
            let all = x.mean(row.clone(), Over::Rows);
            // row / all first: the product row · column may underflow in f32
            row / all.max(epsilon1.clone()) * column
        } else {
            let old = x.state("variance", Span::Element, 0.0);
            x.becomes(old.clone(), moved(old, square, keep))
        };
        let update = g * variance.max(epsilon1.clone() * epsilon1).rsqrt();
        let size = x.mean(p.clone() * p, Over::All).sqrt().max(epsilon2);
        let length = x.mean(update.clone() * update.clone(), Over::All).sqrt();
        let rate = x.rate().min(x.step().rsqrt());
        let step = x.keep(size * rate / (length / clip).max(1.0));
        decayed(x, decay) - step * update
    },
};
