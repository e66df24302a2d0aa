//! Compares every item of the public Rust API, with its signature, with the listing in `tests/golden/public_api.txt`, so that a
//! change of the public API is visible in the commit, and can be noted in CHANGELOG.
//!
//! `WEFT_WRITE_GOLDEN=1 cargo test -p weft --test public_api` rewrites the listing.
//!
//! The source is parsed as if every feature were on: public modules of `lib.rs`, their declarations and `pub use` items, and
//! all `impl`s of these, wherever they are. Bodies, documentation and `doc(hidden)` items are left out, and items are sorted,
//! so that moving code changes nothing. Items declared by macros are at the end, as declared.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, TraitItem, Type, UseTree, Visibility, parse_quote};

type ModulePath = Vec<String>;

/// A module with its items; what only tests or fewer features have is left out.
struct Module {
    path: ModulePath,
    items: Vec<Item>,
}

/// The crate's modules.
struct Source {
    modules: Vec<Module>,
}

/// Whether an item is there with every feature on, and for others to see.
fn is_there(attrs: &[Attribute]) -> bool {
    attrs.iter().all(|a| {
        let text = a.meta.to_token_stream().to_string();
        let fewer = a.path().is_ident("cfg") && (text.contains("not (feature") || text.contains("test"));
        !fewer && !text.starts_with("doc (hidden")
    })
}

fn is_public(of: &Visibility) -> bool {
    matches!(of, Visibility::Public(_))
}

fn attrs_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        _ => &[],
    }
}

/// The name of what an item declares, and who sees it.
fn declared(item: &Item) -> Option<(String, &Visibility)> {
    let (name, visible) = match item {
        Item::Const(i) => (&i.ident, &i.vis),
        Item::Enum(i) => (&i.ident, &i.vis),
        Item::Fn(i) => (&i.sig.ident, &i.vis),
        Item::Mod(i) => (&i.ident, &i.vis),
        Item::Static(i) => (&i.ident, &i.vis),
        Item::Struct(i) => (&i.ident, &i.vis),
        Item::Trait(i) => (&i.ident, &i.vis),
        Item::Type(i) => (&i.ident, &i.vis),
        _ => return None,
    };
    Some((name.to_string(), visible))
}

/// Reads a file of a module whose own modules are in a folder.
fn load(file: &Path, folder: &Path, path: ModulePath, all: &mut Vec<Module>) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    take(parsed.items, (file, folder), path, all);
}

fn take(items: Vec<Item>, (file, folder): (&Path, &Path), path: ModulePath, all: &mut Vec<Module>) {
    let items: Vec<Item> = items.into_iter().filter(|i| is_there(attrs_of(i))).collect();
    for item in &items {
        let Item::Mod(m) = item else { continue };
        let name = m.ident.to_string();
        let (inside, path) = (folder.join(&name), [path.as_slice(), std::slice::from_ref(&name)].concat());
        let said = m.attrs.iter().find(|a| a.path().is_ident("path")).map(|a| match &a.meta {
            syn::Meta::NameValue(v) => v.value.to_token_stream().to_string(),
            _ => String::new(),
        });
        let said = said.map(|said| file.with_file_name(said.trim_matches('"')));
        match &m.content {
            Some((_, items)) => take(items.clone(), (file, &inside), path, all),
            None => {
                let usual = [folder.join(format!("{name}.rs")), inside.join("mod.rs")];
                let own = said.or_else(|| usual.into_iter().find(|f| f.exists()));
                let own = own.unwrap_or_else(|| panic!("no file of {name} in {}", folder.display()));
                load(&own, &inside, path, all);
            }
        }
    }
    all.push(Module { path, items });
}

/// The names that a `use` brings in, each with the path that it stands for; `*` for all of a module.
fn leaves(tree: &UseTree, before: &[String], all: &mut Vec<(ModulePath, String)>) {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(p) => leaves(&p.tree, &with(&p.ident), all),
        UseTree::Name(n) if n.ident == "self" => {
            all.push((before.to_vec(), before.last().cloned().unwrap_or_default()));
        }
        UseTree::Name(n) => all.push((with(&n.ident), n.ident.to_string())),
        UseTree::Rename(r) => all.push((with(&r.ident), r.rename.to_string())),
        UseTree::Glob(_) => all.push((before.to_vec(), "*".into())),
        UseTree::Group(g) => g.items.iter().for_each(|t| leaves(t, before, all)),
    }
}

/// An item: the module that declares it, and its name.
type Key = (ModulePath, String);

impl Source {
    fn module(&self, path: &[String]) -> Option<&Module> {
        self.modules.iter().find(|m| m.path == path)
    }

    fn item(&self, key: &Key) -> Option<&Item> {
        let is = |i: &&Item| declared(i).is_some_and(|(name, _)| name == key.1);
        self.module(&key.0)?.items.iter().find(is)
    }

    /// The item that a name stands for in a module.
    fn named(&self, module: &[String], name: &str, depth: usize) -> Option<Key> {
        let key = (module.to_vec(), name.to_string());
        if depth > 8 || self.item(&key).is_some() {
            return (depth <= 8).then_some(key);
        }
        let mut found = vec![];
        for item in &self.module(module)?.items {
            if let Item::Use(u) = item {
                leaves(&u.tree, &[], &mut found);
            }
        }
        let of = |(path, own): &(ModulePath, String)| match own.as_str() {
            "*" => self.named(&self.module_of(module, path, depth + 1)?, name, depth + 1),
            own if own == name => self.at(module, path, depth + 1),
            _ => None,
        };
        found.iter().find_map(of)
    }

    /// The module that a path stands for in a module.
    fn module_of(&self, from: &[String], path: &[String], depth: usize) -> Option<ModulePath> {
        let (mut at, mut rest) = (from.to_vec(), path);
        while let Some((first, others)) = rest.split_first() {
            at = match first.as_str() {
                "crate" => vec![],
                "self" => at,
                "super" => at.split_last()?.1.to_vec(),
                name => {
                    let (home, name) = self.named(&at, name, depth)?;
                    [home, vec![name]].concat()
                }
            };
            rest = others;
        }
        self.module(&at).map(|m| m.path.clone())
    }

    /// The item that a path stands for in a module; `None` for another crate's.
    fn at(&self, from: &[String], path: &[String], depth: usize) -> Option<Key> {
        let (name, before) = path.split_last()?;
        self.named(&self.module_of(from, before, depth)?, name, depth)
    }

    /// The item of a path in the code of a module.
    fn of_path(&self, from: &[String], path: &syn::Path) -> Option<Key> {
        let names: ModulePath = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.at(from, &names, 0)
    }

    /// Modules that others see.
    fn public(&self) -> BTreeSet<ModulePath> {
        let mut all = BTreeSet::from([vec![]]);
        // a module stands behind those inside it
        for module in self.modules.iter().rev().filter(|m| !m.path.is_empty()) {
            let (name, above) = module.path.split_last().unwrap();
            let key = (above.to_vec(), name.clone());
            let shown = self.item(&key).and_then(declared).is_some_and(|(_, visible)| is_public(visible));
            if shown && all.contains(above) {
                all.insert(module.path.clone());
            }
        }
        all
    }
}

/// Of attributes, those that are part of what others rely on.
fn keep_attrs(attrs: &mut Vec<Attribute>) {
    let kept = ["non_exhaustive", "must_use", "deprecated", "derive", "cfg", "repr"];
    attrs.retain(|a| kept.iter().any(|k| a.path().is_ident(k)));
}

fn keep_fields(fields: &mut Fields) {
    match fields {
        Fields::Named(f) => {
            let before = f.named.len();
            f.named = std::mem::take(&mut f.named)
                .into_iter()
                .filter(|f| is_public(&f.vis) && is_there(&f.attrs))
                .collect();
            f.named.iter_mut().for_each(|f| keep_attrs(&mut f.attrs));
            if f.named.len() < before {
                f.named.push(syn::Field {
                    attrs: vec![],
                    vis: Visibility::Inherited,
                    mutability: syn::FieldMutability::None,
                    ident: Some(parse_quote!(_private)),
                    colon_token: Some(Default::default()),
                    ty: parse_quote!(_),
                });
            }
        }
        Fields::Unnamed(f) => {
            for f in &mut f.unnamed {
                keep_attrs(&mut f.attrs);
                if !is_public(&f.vis) {
                    f.ty = parse_quote!(_);
                }
            }
        }
        Fields::Unit => {}
    }
}

/// An item without bodies, documentation and what is private.
fn bare(item: &Item) -> Item {
    let mut item = item.clone();
    match &mut item {
        Item::Const(i) => {
            keep_attrs(&mut i.attrs);
            *i.expr = parse_quote!(_);
        }
        Item::Static(i) => {
            keep_attrs(&mut i.attrs);
            *i.expr = parse_quote!(_);
        }
        Item::Enum(i) => {
            keep_attrs(&mut i.attrs);
            for v in &mut i.variants {
                keep_attrs(&mut v.attrs);
                let fields = match &mut v.fields {
                    Fields::Named(f) => &mut f.named,
                    Fields::Unnamed(f) => &mut f.unnamed,
                    Fields::Unit => continue,
                };
                fields.iter_mut().for_each(|f| keep_attrs(&mut f.attrs));
            }
        }
        Item::Fn(i) => {
            keep_attrs(&mut i.attrs);
            *i.block = parse_quote!({});
        }
        Item::Struct(i) => {
            keep_attrs(&mut i.attrs);
            keep_fields(&mut i.fields);
        }
        Item::Trait(i) => {
            keep_attrs(&mut i.attrs);
            i.items.retain(|i| match i {
                TraitItem::Fn(f) => is_there(&f.attrs),
                _ => true,
            });
            for i in &mut i.items {
                match i {
                    TraitItem::Fn(f) => {
                        keep_attrs(&mut f.attrs);
                        // those who implement it need not write what has a body
                        f.default = f.default.is_some().then(|| parse_quote!({}));
                    }
                    TraitItem::Const(c) => keep_attrs(&mut c.attrs),
                    TraitItem::Type(t) => keep_attrs(&mut t.attrs),
                    _ => {}
                }
            }
        }
        Item::Type(i) => keep_attrs(&mut i.attrs),
        Item::Use(i) => keep_attrs(&mut i.attrs),
        _ => {}
    }
    item
}

/// An `impl` without bodies and what is private; `None` if nothing is left of it.
fn bare_impl(of: &ItemImpl) -> Option<ItemImpl> {
    let mut of = of.clone();
    keep_attrs(&mut of.attrs);
    let by_trait = of.trait_.is_some();
    of.items = (of.items.into_iter())
        .filter_map(|mut item| {
            let kept = match &mut item {
                // a trait's methods are known from it, its types are not
                ImplItem::Fn(f) => {
                    f.block = parse_quote!({});
                    let kept = !by_trait && is_public(&f.vis) && is_there(&f.attrs);
                    keep_attrs(&mut f.attrs);
                    kept
                }
                ImplItem::Const(c) => {
                    c.expr = parse_quote!(_);
                    let kept = !by_trait && is_public(&c.vis) && is_there(&c.attrs);
                    keep_attrs(&mut c.attrs);
                    kept
                }
                ImplItem::Type(_) => by_trait,
                _ => false,
            };
            kept.then_some(item)
        })
        .collect();
    (by_trait || !of.items.is_empty()).then_some(of)
}

fn member_name(item: &ImplItem) -> String {
    match item {
        ImplItem::Fn(f) => f.sig.ident.to_string(),
        ImplItem::Const(c) => c.ident.to_string(),
        other => other.to_token_stream().to_string(),
    }
}

/// The path of a type, behind references.
fn path_of(ty: &Type) -> Option<&syn::Path> {
    match ty {
        Type::Path(p) => Some(&p.path),
        Type::Reference(r) => path_of(&r.elem),
        Type::Group(g) => path_of(&g.elem),
        _ => None,
    }
}

/// Of each public module its items, sorted: by the name of what they declare or implement, then what they are.
type Listing = BTreeMap<ModulePath, BTreeMap<(String, u8, String), Item>>;

fn listing(source: &Source) -> Listing {
    let (public, mut all) = (source.public(), Listing::new());
    // where what is declared is seen
    let mut seen: BTreeMap<Key, ModulePath> = BTreeMap::new();
    let mut later = vec![];
    for path in &public {
        let own = all.entry(path.clone()).or_default();
        for item in &source.module(path).unwrap().items {
            match (item, declared(item)) {
                (Item::Mod(_), _) => {}
                (_, Some((name, visible))) if is_public(visible) => {
                    seen.insert((path.clone(), name.clone()), path.clone());
                    own.insert((name, 0, String::new()), bare(item));
                }
                (Item::Use(u), _) if is_public(&u.vis) => {
                    let mut found = vec![];
                    leaves(&u.tree, &[], &mut found);
                    later.extend(found.into_iter().map(|(from, name)| (path.clone(), from, name)));
                }
                _ => {}
            }
        }
    }
    // a module's own before what others take up from it
    let found = later.into_iter().map(|(path, from, name)| (source.at(&path, &from, 0), path, from, name));
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(key, path, _, _)| key.as_ref().is_none_or(|(home, _)| !home.starts_with(path)));
    for (key, path, from, name) in found {
        let (own, item) = (all.get_mut(&path).unwrap(), key.as_ref().and_then(|k| source.item(k)));
        match (key, item) {
            // declared where nobody looks: here is its place
            (Some(key), Some(item)) if !matches!(item, Item::Mod(_)) && !seen.contains_key(&key) => {
                seen.insert(key, path.clone());
                own.insert((name, 0, String::new()), bare(item));
            }
            _ => {
                let from: TokenStream = from.join("::").parse().unwrap();
                own.insert((name, 0, String::new()), parse_quote!(pub use #from;));
            }
        }
    }
    for module in &source.modules {
        for of in module.items.iter().filter_map(|i| if let Item::Impl(i) = i { bare_impl(i) } else { None })
        {
            let key = path_of(&of.self_ty).and_then(|p| source.of_path(&module.path, p));
            let by = of.trait_.as_ref().map(|(_, path, _)| source.of_path(&module.path, path));
            // a trait of the crate's own that nobody sees is nobody's matter
            if by.as_ref().is_some_and(|by| by.as_ref().is_some_and(|by| !seen.contains_key(by))) {
                continue;
            }
            let known =
                |key: &Option<Key>| key.as_ref().and_then(|k| Some((k.1.clone(), seen.get(k)?.clone())));
            let Some((name, path)) = known(&key).or_else(|| known(&by.clone().flatten())) else { continue };
            let header = ItemImpl { items: vec![], ..of.clone() }.to_token_stream().to_string();
            let sort = 1 + u8::from(by.is_some());
            let entry = all.get_mut(&path).unwrap().entry((name, sort, header));
            let Item::Impl(there) =
                entry.or_insert_with(|| Item::Impl(ItemImpl { items: vec![], ..of.clone() }))
            else {
                continue;
            };
            there.items.extend(of.items);
            there.items.sort_by_key(member_name);
        }
    }
    all
}

/// Tokens as people write them.
fn plain(tokens: TokenStream) -> String {
    let text = tokens.to_string();
    [(" : ", ": "), (" , ", ", "), (" ; ", "; "), (" ,", ","), (".. ", "..")]
        .iter()
        .fold(text, |t, (from, to)| t.replace(from, to))
}

/// A list without what is said of each: `axis: Int = "Which." => 1` is `axis: Int => 1`.
fn unsaid(tokens: TokenStream) -> String {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_said = |at: usize| tokens.get(at).is_some_and(|t| t.to_string().starts_with('"'));
    let kept = (0..tokens.len()).filter(|&at| !is_said(at) && !is_said(at + 1));
    plain(kept.map(|at| tokens[at].clone()).collect()).trim_end_matches(',').to_string()
}

/// The names at the head of a list's items.
fn heads(tokens: TokenStream) -> String {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let items = tokens.split(|t| t.to_string() == ",");
    items.filter_map(|i| Some(format!("{}: Float", i.first()?))).collect::<Vec<_>>().join(", ")
}

/// Operations as they are declared: `softmax(x) [axis: Int]`.
fn operations(by: &str, tokens: TokenStream, all: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let group = |at: usize, delimiter: Delimiter| match tokens.get(at) {
        Some(TokenTree::Group(g)) if g.delimiter() == delimiter => Some(g.stream()),
        _ => None,
    };
    let word = |at: usize| tokens.get(at).map(ToString::to_string).unwrap_or_default();
    for at in 0..tokens.len() {
        // Name: "name" as name(…) with Options(…) […]
        if word(at + 1) != ":" || word(at + 3) != "as" {
            continue;
        }
        let inputs = group(at + 5, Delimiter::Parenthesis).map(plain).unwrap_or_default();
        let inputs = match by {
            "binary" => format!("a, b: {inputs}"),
            "comparison" => "a, b".into(),
            _ => inputs,
        };
        let mut line = format!("{}({inputs})", word(at + 4));
        let mut next = at + 6;
        if ["with", "by"].contains(&word(next).as_str()) {
            line += &format!(" {} {}", word(next), word(next + 1));
            next += 2;
            if let Some(needs) = group(next, Delimiter::Parenthesis) {
                line += &format!("({})", plain(needs));
                next += 1;
            }
        }
        if let Some(attrs) = group(next, Delimiter::Bracket) {
            let attrs = if by == "unary_with" { heads(attrs) } else { unsaid(attrs) };
            line += &if attrs.is_empty() { String::new() } else { format!(" [{attrs}]") };
        }
        all.insert(line);
    }
}

/// Errors as they are declared, without their messages.
fn errors(tokens: TokenStream, all: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = without_docs(tokens).into_iter().collect();
    for three in tokens.windows(3) {
        if let [TokenTree::Literal(code), TokenTree::Ident(name), TokenTree::Group(fields)] = three {
            all.insert(format!("{code} Error::{name} {{ {} }}", plain(fields.stream())));
        }
    }
}

/// What macros declare, as it is declared.
fn by_macros(source: &Source) -> String {
    let [mut methods, mut kinds, mut others] = [0; 3].map(|_| BTreeSet::new());
    for module in &source.modules {
        for item in &module.items {
            let Item::Macro(m) = item else { continue };
            let name = m.mac.path.to_token_stream().to_string();
            let tokens = m.mac.tokens.clone();
            match (name.as_str(), module.path.first().map(String::as_str)) {
                ("op" | "unary" | "unary_with" | "binary" | "comparison", _) => {
                    operations(&name, tokens, &mut methods)
                }
                ("errors", _) => errors(tokens, &mut kinds),
                ("functions" | "comparisons" | "operators", Some("expr" | "ops")) | ("elements", _) => {
                    others.insert(format!("{}: {name}! {}", module.path.join("::"), plain(tokens)));
                }
                _ => {}
            }
        }
    }
    let lines = |title: &str, all: BTreeSet<String>| {
        format!("\n// ---- {title}\n\n{}", all.into_iter().map(|l| format!("{l}\n")).collect::<String>())
    };
    lines("operations: methods of graph::Graph, with their options in ops", methods)
        + &lines("error::Error, with codes", kinds)
        + &lines("what else macros declare", others)
}

fn without_docs(tokens: TokenStream) -> TokenStream {
    let mut all: Vec<TokenTree> = vec![];
    for token in tokens {
        match token {
            TokenTree::Group(g) if all.last().is_some_and(|t| t.to_string() == "#") => {
                all.pop();
                drop(g);
            }
            TokenTree::Group(g) => {
                all.push(proc_macro2::Group::new(g.delimiter(), without_docs(g.stream())).into());
            }
            other => all.push(other),
        }
    }
    all.into_iter().collect()
}

fn source() -> Source {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = vec![];
    load(&folder.join("lib.rs"), &folder, vec![], &mut modules);
    Source { modules }
}

fn text(source: &Source) -> String {
    let mut all = String::from(
        "// The public Rust API, written by `WEFT_WRITE_GOLDEN=1 cargo test -p weft --test public_api`: see there.\n",
    );
    for (path, items) in listing(source) {
        let name = if path.is_empty() { "crate".into() } else { path.join("::") };
        let items: Vec<Item> = items.into_values().collect();
        let text = prettyplease::unparse(&syn::File { shebang: None, attrs: vec![], items });
        all += &format!("\n// ---- {name}\n\n{}", text.replace(" {}\n", ";\n"));
    }
    all + &by_macros(source)
}

#[test]
fn the_public_api_is_as_listed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/public_api.txt");
    let now = text(&source());
    if std::env::var_os("WEFT_WRITE_GOLDEN").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let listed = std::fs::read_to_string(&file).unwrap_or_default();
    let lines = |text: &str| text.lines().map(String::from).collect::<BTreeSet<_>>();
    let (was, is) = (lines(&listed), lines(&now));
    let changed: Vec<String> = (was.difference(&is).map(|l| format!("- {l}")))
        .chain(is.difference(&was).map(|l| format!("+ {l}")))
        .collect();
    assert!(
        listed == now,
        "the public API changed:\n{}\n\nIf that is meant: WEFT_WRITE_GOLDEN=1 cargo test -p weft --test public_api, commit the \
         listing, and name in CHANGELOG what went or was renamed.",
        changed.join("\n")
    );
}

#[test]
fn the_listing_has_what_others_call() {
    let listed = text(&source());
    for wanted in [
        "pub fn compile(&self, graph: &Graph) -> Result<Compiled>",
        "pub struct Session",
        "pub trait Element",
        "pub enum DType",
        "\neq(a, b)\n",
        "300 Error::UnknownName { kind: String,",
        "pub fn safetensors(path: impl AsRef<Path>) -> Result<Weights>",
        "pub use crate::session::Session;",
        "softmax(x) [axis: Int]",
        "conv2d(x, w; bias) with Conv2dOptions() [stride: Pair => [1, 1]",
    ] {
        assert!(listed.contains(wanted), "{wanted} is not in the listing");
    }
    for hidden in ["pub mod internals", "fn collect", "struct Emitter", "impl Sealed"] {
        assert!(!listed.contains(hidden), "{hidden} is in the listing");
    }
}
