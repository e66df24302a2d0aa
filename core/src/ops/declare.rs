//! The macro with which an operation is declared: its identity in one place, nothing by default.

/// Declares an operation as a unit struct, its `Op` implementation and its builder method.
///
/// Inputs are `(a, b)`, `(a, b; optional)` or `(..x)`. The builder method takes the inputs, then the
/// attributes in order. A primitive leaves `decompose` out.
macro_rules! op {
    (
        $Name:ident: $name:literal as $method:ident $inputs:tt [ $( $attr:ident : $kind:ident = $meaning:literal ),* $(,)? ]
        $about:literal
        infer: $infer:expr;
        evaluate: $evaluate:expr;
        grad: $grad:expr;
        lower: $lower:expr;
        $( decompose: $decompose:expr; )?
        samples: $samples:expr;
    ) => {
        #[doc = $about]
        pub struct $Name;

        impl $crate::graph::Op for $Name {
            fn name(&self) -> &'static str { $name }
            // the engine's own change with the engine, whose version is in every key
            fn version(&self) -> u32 { 0 }
            fn about(&self) -> &'static str { $about }
            fn inputs(&self) -> $crate::graph::Inputs { op!(@inputs $inputs) }
            fn attributes(&self) -> &'static [$crate::graph::AttrSpec] {
                &[ $( $crate::graph::AttrSpec {
                    name: stringify!($attr), kind: $crate::graph::AttrKind::$kind, about: $meaning,
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

        op!(@builder $about $Name $method $inputs [ $( $attr : $kind ),* ]);
    };

    (@inputs ( $($must:ident),+ )) => { $crate::graph::Inputs::Fixed(&[ $( stringify!($must) ),+ ]) };
    (@inputs ()) => { $crate::graph::Inputs::Fixed(&[]) };
    (@inputs ( $($must:ident),+ ; $($may:ident),+ )) => {
        $crate::graph::Inputs::Optional(&[ $( stringify!($must) ),+ ], &[ $( stringify!($may) ),+ ])
    };
    (@inputs ( .. $many:ident )) => { $crate::graph::Inputs::Variadic(stringify!($many)) };

    (@builder $about:literal $Name:ident $method:ident ( $($must:ident),* ) [ $( $attr:ident : $kind:ident ),* ]) => {
        impl $crate::graph::Graph {
            #[doc = $about]
            #[allow(clippy::too_many_arguments)]
            pub fn $method(&self, $( $must: $crate::graph::Value, )* $( $attr: op!(@rust $kind) ),*) -> $crate::graph::Value {
                self.apply(&$Name, &[ $( $must ),* ], op!(@attrs [ $( $attr : $kind ),* ]))
            }
        }
    };
    (@builder $about:literal $Name:ident $method:ident ( $($must:ident),+ ; $($may:ident),+ ) [ $( $attr:ident : $kind:ident ),* ]) => {
        impl $crate::graph::Graph {
            #[doc = $about]
            #[allow(clippy::too_many_arguments)]
            pub fn $method(&self, $( $must: $crate::graph::Value, )* $( $may: Option<$crate::graph::Value>, )* $( $attr: op!(@rust $kind) ),*) -> $crate::graph::Value {
                let inputs: Vec<$crate::graph::Value> =
                    [ $( Some($must), )* $( $may ),+ ].into_iter().flatten().collect();
                self.apply(&$Name, &inputs, op!(@attrs [ $( $attr : $kind ),* ]))
            }
        }
    };
    (@builder $about:literal $Name:ident $method:ident ( .. $many:ident ) [ $( $attr:ident : $kind:ident ),* ]) => {
        impl $crate::graph::Graph {
            #[doc = $about]
            pub fn $method(&self, $many: &[$crate::graph::Value], $( $attr: op!(@rust $kind) ),*) -> $crate::graph::Value {
                self.apply(&$Name, $many, op!(@attrs [ $( $attr : $kind ),* ]))
            }
        }
    };

    (@attrs [ $( $attr:ident : $kind:ident ),* ]) => {
        $crate::graph::Attrs(vec![ $( (stringify!($attr), op!(@attr $kind $attr)) ),* ])
    };
    (@rust Int) => { i64 };
    (@rust Ints) => { &[i64] };
    (@rust Float) => { f64 };
    (@rust Bool) => { bool };
    (@rust DType) => { $crate::tensor::DType };
    (@attr Ints $v:ident) => { $crate::graph::Attr::Ints($v.to_vec()) };
    (@attr $kind:ident $v:ident) => { $crate::graph::Attr::$kind($v) };
}
