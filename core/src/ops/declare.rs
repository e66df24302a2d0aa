//! The macro that declares operations: everything about one in a single place, without defaults.
//!
//! `op!` states name, inputs, attributes, inference, exact evaluation, gradient, lowering and samples. The builder's method,
//! the text form and the tests are derived from these. A pointwise operation is a single expression, from which its evaluation,
//! gradient and kernels are derived.

/// Declares an operation as a unit struct, its `Op` implementation and its builder method.
///
/// Inputs are `(a, b)`, `(a, b; optional)` or `(..x)`. The builder method takes the inputs, then the attributes in order. A
/// primitive omits `decompose`.
///
/// If attributes have defaults, `with ConvOptions()` after the inputs creates a struct of them, which the method takes as its
/// last argument; each default follows `=>`. Attributes without a default are arguments of the struct's `new`: `with
/// PoolOptions(kernel: Pair)`. `by ConvOptions` uses the struct of another operation with the same attributes.
macro_rules! op {
    ( $Name:ident: $name:literal as $method:ident $inputs:tt [ $($attrs:tt)* ] $about:literal $($rest:tt)* ) => {
        op!(@declare $Name $name $inputs [ $($attrs)* ] $about $($rest)*);
        op!(@builder $about $Name $method $inputs [ $($attrs)* ]);
    };
    ( $Name:ident: $name:literal as $method:ident $inputs:tt with $Options:ident $needs:tt [ $($attrs:tt)* ] $about:literal $($rest:tt)* ) => {
        op!(@declare $Name $name $inputs [ $($attrs)* ] $about $($rest)*);
        op!(@options $Options $needs $method [ $($attrs)* ]);
        op!(@builder $about $Name $method $inputs [ $($attrs)* ] $Options);
    };
    ( $Name:ident: $name:literal as $method:ident $inputs:tt by $Options:ident [ $($attrs:tt)* ] $about:literal $($rest:tt)* ) => {
        op!(@declare $Name $name $inputs [ $($attrs)* ] $about $($rest)*);
        op!(@builder $about $Name $method $inputs [ $($attrs)* ] $Options);
    };

    (
        @declare $Name:ident $name:literal $inputs:tt [ $( $attr:ident : $kind:ident = $meaning:literal $( => $usual:expr )? ),* $(,)? ]
        $about:literal
        infer: $infer:expr;
        evaluate: $evaluate:expr;
        grad: $grad:expr;
        lower: $lower:expr;
        $( decompose: $decompose:expr; )?
        samples: $samples:expr;
    ) => {
        #[doc = $about]
        #[derive(Debug)]
        pub struct $Name;

        impl $crate::graph::Op for $Name {
            fn name(&self) -> &'static str { $name }
            // the engine's own operations are versioned with the engine, whose version is in every key
            fn version(&self) -> u32 { 0 }
            fn about(&self) -> &'static str { $about }
            fn inputs(&self) -> $crate::graph::Inputs { op!(@inputs $inputs) }
            fn attributes(&self) -> &'static [$crate::graph::AttrSpec] {
                &[ $( $crate::graph::AttrSpec {
                    name: stringify!($attr), kind: op!(@kind $kind), about: $meaning,
                    default: op!(@default_text $( $usual )?),
                } ),* ]
            }
            fn infer(&self, call: &$crate::graph::Call<'_>)
                -> std::result::Result<$crate::tensor::TensorType, $crate::graph::Refusal> {
                let f: fn(&$crate::graph::Call<'_>)
                    -> std::result::Result<$crate::tensor::TensorType, $crate::graph::Refusal> = $infer;
                f(call)
            }
            fn evaluate(&self, call: &$crate::graph::Call<'_>, inputs: &[&$crate::graph::Array])
                -> $crate::error::Result<$crate::graph::Array> {
                #[allow(clippy::type_complexity)]
                let f: fn(&Self, &$crate::graph::Call<'_>, &[&$crate::graph::Array])
                    -> $crate::error::Result<$crate::graph::Array> = $evaluate;
                f(self, call, inputs)
            }
            fn grad(&self, g: &$crate::graph::Graph, node: $crate::graph::Value, up: $crate::graph::Value)
                -> $crate::graph::Grad {
                $crate::ops::widen::gradient(&$Name, g, node, up, $grad)
            }
            fn lower(&self, call: &$crate::graph::Call<'_>) -> $crate::graph::Lowering {
                let f: fn(&$crate::graph::Call<'_>) -> $crate::graph::Lowering = $lower;
                f(call)
            }
            #[allow(unused_variables)]
            fn decompose(&self, g: &$crate::graph::Graph, inputs: &[$crate::graph::Value], attrs: &$crate::graph::Attrs)
                -> Option<$crate::graph::Value> {
                $( return Some($crate::ops::widen::decompose(self, g, inputs, attrs, $decompose)); )?
                #[allow(unreachable_code)]
                None
            }
            fn samples(&self) -> Vec<$crate::graph::Sample> {
                // they are 0.2 MB of code that only tests call
                if !cfg!(feature = "samples") {
                    return Vec::new();
                }
                let f: fn() -> Vec<$crate::graph::Sample> = $samples;
                f()
            }
        }
    };

    (@inputs ( $($must:ident),+ )) => { $crate::graph::Inputs::Fixed(&[ $( stringify!($must) ),+ ]) };
    (@inputs ()) => { $crate::graph::Inputs::Fixed(&[]) };
    (@inputs ( $($must:ident),+ ; $($may:ident),+ )) => {
        $crate::graph::Inputs::Optional(&[ $( stringify!($must) ),+ ], &[ $( stringify!($may) ),+ ])
    };
    (@inputs ( .. $many:ident )) => { $crate::graph::Inputs::Variadic(stringify!($many)) };

    (@options $Options:ident ( $( $need:ident : $ntype:ident ),* ) $method:ident [ $( $attr:ident : $kind:ident = $meaning:literal $( => $usual:expr )? ),* $(,)? ]) => {
        #[doc = concat!("The attributes of [`", stringify!($method), "`](crate::graph::Graph::", stringify!($method), ").")]
        #[doc = ""]
        #[doc = concat!("Begin with [`", stringify!($Options), "::new`] and change what is not as usual: each attribute has a method.")]
        #[doc = ""]
        #[doc = concat!(
            "```\nuse weft::ops::", stringify!($Options), ";\n\nlet usual = ", stringify!($Options), "::new(",
            $( op!(@example $ntype), ", ", )* ");\nassert_eq!(", $( "usual.", stringify!($attr), "(usual.", stringify!($attr), ")", ", usual);\nassert_eq!(", )* "usual, usual);\n```"
        )]
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[non_exhaustive]
        pub struct $Options {
            $( #[doc = $meaning] pub $attr: op!(@field $kind), )*
        }

        impl $Options {
            #[doc = "The usual values."]
            #[allow(clippy::new_without_default)] // those that need nothing have one
            pub fn new($( $need: op!(@field $ntype) ),*) -> Self {
                $Options { $( $attr: op!(@usual $attr $( $usual )?) ),* }
            }

            $(
                #[doc = $meaning]
                $( #[doc = concat!("\n\nUsually `", stringify!($usual), "`.")] )?
                #[must_use]
                pub fn $attr(mut self, $attr: op!(@field $kind)) -> Self {
                    self.$attr = $attr;
                    self
                }
            )*

            /// Those of a node.
            #[allow(dead_code)] // not every operation is read so
            pub(crate) fn of(attrs: &$crate::graph::Attrs) -> Self {
                $Options { $( $attr: op!(@read $kind attrs $attr) ),* }
            }
        }

        op!(@default $Options ( $( $need )* ));
    };
    (@example Pair) => { "[2, 2]" };
    (@example Int) => { "2" };
    (@example Float) => { "0.5" };
    (@usual $attr:ident) => { $attr };
    (@usual $attr:ident $usual:expr) => { $usual };
    (@default_text) => { None };
    (@default_text $usual:expr) => { Some(stringify!($usual)) };
    (@default $Options:ident ()) => {
        impl Default for $Options {
            fn default() -> Self {
                $Options::new()
            }
        }
    };
    (@default $Options:ident ( $($need:ident)+ )) => {};

    (@builder $about:literal $Name:ident $method:ident ( $($must:ident),* ) [ $( $attr:ident : $kind:ident = $meaning:literal $( => $usual:expr )? ),* $(,)? ]) => {
        impl $crate::graph::Graph {
            #[doc = $about]
            #[doc = "\n\n"]
            $( #[doc = concat!("- `", stringify!($attr), "`: ", $meaning)] )*
            #[doc = op!(@refused)]
            #[allow(clippy::too_many_arguments)]
            pub fn $method(&self, $( $must: impl Into<$crate::graph::Value>, )* $( $attr: op!(@rust $kind) ),*) -> $crate::graph::Value {
                self.apply(&$Name, &[ $( $must.into() ),* ], op!(@attrs [ $( $attr : $kind ),* ]))
            }
        }
    };
    (@builder $about:literal $Name:ident $method:ident ( $($must:ident),+ ; $($may:ident),+ ) [ $( $attr:ident : $kind:ident = $meaning:literal $( => $usual:expr )? ),* $(,)? ]) => {
        impl $crate::graph::Graph {
            #[doc = $about]
            #[doc = "\n\n"]
            $( #[doc = concat!("- `", stringify!($attr), "`: ", $meaning)] )*
            #[doc = op!(@refused)]
            #[allow(clippy::too_many_arguments)]
            pub fn $method(&self, $( $must: impl Into<$crate::graph::Value>, )* $( $may: Option<$crate::graph::Value>, )* $( $attr: op!(@rust $kind) ),*) -> $crate::graph::Value {
                let inputs: Vec<$crate::graph::Value> =
                    [ $( Some($must.into()), )* $( $may ),+ ].into_iter().flatten().collect();
                self.apply(&$Name, &inputs, op!(@attrs [ $( $attr : $kind ),* ]))
            }
        }
    };
    (@builder $about:literal $Name:ident $method:ident ( .. $many:ident ) [ $( $attr:ident : $kind:ident = $meaning:literal $( => $usual:expr )? ),* $(,)? ]) => {
        impl $crate::graph::Graph {
            #[doc = $about]
            #[doc = "\n\n"]
            $( #[doc = concat!("- `", stringify!($attr), "`: ", $meaning)] )*
            #[doc = op!(@refused)]
            pub fn $method(&self, $many: &[$crate::graph::Value], $( $attr: op!(@rust $kind) ),*) -> $crate::graph::Value {
                self.apply(&$Name, $many, op!(@attrs [ $( $attr : $kind ),* ]))
            }
        }
    };
    (@builder $about:literal $Name:ident $method:ident ( $($must:ident),+ $( ; $($may:ident),+ )? ) [ $( $attr:ident : $kind:ident = $meaning:literal $( => $usual:expr )? ),* $(,)? ] $Options:ident) => {
        impl $crate::graph::Graph {
            #[doc = $about]
            #[doc = "\n\n"]
            #[doc = concat!("Attributes, in [`", stringify!($Options), "`](crate::ops::", stringify!($Options), "):")]
            #[doc = ""]
            $( #[doc = concat!("- `", stringify!($attr), "`: ", $meaning $( , " Usually `", stringify!($usual), "`." )?)] )*
            #[doc = op!(@refused)]
            pub fn $method(&self, $( $must: impl Into<$crate::graph::Value>, )* $( $( $may: Option<$crate::graph::Value>, )+ )? options: $Options) -> $crate::graph::Value {
                let inputs: Vec<$crate::graph::Value> =
                    [ $( Some($must.into()), )* $( $( $may ),+ )? ].into_iter().flatten().collect();
                let $Options { $( $attr ),* } = options;
                self.apply(&$Name, &inputs, op!(@attrs [ $( $attr : $kind ),* ]))
            }
        }
    };
    (@refused) => {
        "\n\nInputs and attributes that it does not accept are an error of the graph, which compiling returns; the result is \
         then [`Value::POISON`](crate::graph::Value::POISON)."
    };

    (@attrs [ $( $attr:ident : $kind:ident ),* ]) => {
        $crate::graph::Attrs(vec![ $( (stringify!($attr), op!(@attr $kind $attr)) ),* ])
    };
    (@kind Pair) => { $crate::graph::AttrKind::Ints };
    (@kind $kind:ident) => { $crate::graph::AttrKind::$kind };
    (@rust Int) => { i64 };
    (@rust Ints) => { &[i64] };
    (@rust Float) => { f64 };
    (@rust Bool) => { bool };
    (@rust DType) => { $crate::tensor::DType };
    (@field Int) => { i64 };
    (@field Pair) => { [i64; 2] };
    (@field Float) => { f64 };
    (@field Bool) => { bool };
    (@read Int $attrs:ident $attr:ident) => { $attrs.int(stringify!($attr)) };
    // a node that was accepted has two
    (@read Pair $attrs:ident $attr:ident) => { <[i64; 2]>::try_from($attrs.ints(stringify!($attr))).unwrap_or_default() };
    (@read Float $attrs:ident $attr:ident) => { $attrs.float(stringify!($attr)) };
    (@read Bool $attrs:ident $attr:ident) => { $attrs.bool(stringify!($attr)) };
    (@attr Ints $v:ident) => { $crate::graph::Attr::Ints($v.to_vec()) };
    (@attr Pair $v:ident) => { $crate::graph::Attr::Ints($v.to_vec()) };
    (@attr $kind:ident $v:ident) => { $crate::graph::Attr::$kind($v) };
}
