//! Text: tokenizers, and sentence embeddings from a Hugging Face folder.

use crate::arguments::*;
use crate::artifact::weft_artifact;
use crate::compile::{weft_precision, weft_progress_fn};
use crate::device::weft_device;
use crate::error::*;
use crate::guard::*;
use crate::handle::{self, object};
use crate::inspect::{memory_summary, weft_memory_summary};
use engine::device::Device;
use engine::models::{Encoder, Prompt};
use engine::session::Artifact;
use engine::text::{Encoding, Tokenizer};
use std::ffi::{c_char, c_void};

/// Converts text to token ids and back. Immutable; threads may share it.
pub struct weft_tokenizer {
    _opaque: [u8; 0],
}
object!(Tokenizer, weft_tokenizer);

/// The tokens of one text, or of a pair. Immutable; threads may share it.
pub struct weft_encoding {
    _opaque: [u8; 0],
}

/// The object behind weft_encoding.
pub struct Tokens {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    special: Vec<u8>,
    truncated: bool,
}
object!(Tokens, weft_encoding);

impl From<Encoding> for Tokens {
    fn from(e: Encoding) -> Tokens {
        let special = e.special.iter().map(|s| u8::from(*s)).collect();
        Tokens { ids: e.ids, type_ids: e.type_ids, special, truncated: e.truncated }
    }
}

/// A sentence encoder: a model with its tokenizer, compiled for sizes as needed. Threads may share it: they use the device in
/// turn, batch by batch. Setting a prompt and adding an artifact need exclusive access: else they return WEFT_STATUS_BUSY.
pub struct weft_encoder {
    _opaque: [u8; 0],
}
object!(Encoder, weft_encoder);

/// Reads a tokenizer.json, or the tokenizer of a Hugging Face folder: its tokenizer.json, else one built from its vocabulary
/// files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_tokenizer_load(
    path: *const c_char,
    path_length: usize,
    tokenizer: *mut *mut weft_tokenizer,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_tokenizer_load", err, || {
        let place = out(tokenizer, "tokenizer")?;
        // SAFETY: the preamble's promise.
        let path = unsafe { name(path, path_length, "path") }?;
        give(place, Tokenizer::from_file(path)?)
    })
}

/// Reads the contents of a tokenizer.json.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_tokenizer_from_memory(
    data: *const c_void,
    data_bytes: usize,
    tokenizer: *mut *mut weft_tokenizer,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_tokenizer_from_memory", err, || {
        let place = out(tokenizer, "tokenizer")?;
        // SAFETY: the preamble's promise.
        let data = unsafe { bytes(data, data_bytes, "data") }?;
        give(place, Tokenizer::from_bytes(data)?)
    })
}

/// The tokens of a text, or of a pair if `pair` is not NULL, with special tokens, at most `max_tokens`: longer texts are
/// truncated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_tokenizer_encode(
    tokenizer: *const weft_tokenizer,
    first: *const c_char,
    first_length: usize,
    pair: *const c_char,
    pair_length: usize,
    max_tokens: usize,
    encoding: *mut *mut weft_encoding,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_tokenizer_encode", err, || {
        let place = out(encoding, "encoding")?;
        // SAFETY: the preamble's promise.
        let first = unsafe { text(first, first_length, "text") }?;
        let tokenizer = handle::share::<Tokenizer>(tokenizer)?;
        let encoding = if pair.is_null() {
            tokenizer.encode(first, max_tokens)?
        } else {
            // SAFETY: as above.
            tokenizer.encode_pair(first, unsafe { text(pair, pair_length, "pair") }?, max_tokens)?
        };
        give(place, Tokens::from(encoding))
    })
}

/// The text of token ids, optionally without special tokens. Ids beyond the vocabulary are skipped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_tokenizer_decode(
    tokenizer: *const weft_tokenizer,
    ids: *const u32,
    ids_count: usize,
    skip_special: bool,
    decoded: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_tokenizer_decode", err, || {
        let place = out(decoded, "decoded")?;
        // SAFETY: the preamble's promise.
        let ids = unsafe { array(ids, ids_count, "ids") }?;
        let text = handle::share::<Tokenizer>(tokenizer)?.decode(ids, skip_special)?;
        give(place, BytesObject::new(text))
    })
}

/// The number of tokens, added ones included, and the padding id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_tokenizer_sizes(
    tokenizer: *const weft_tokenizer,
    tokens: *mut usize,
    pad_id: *mut u32,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_tokenizer_sizes", err, || {
        let (tokens, pad_id) = (out(tokens, "tokens")?, out(pad_id, "pad_id")?);
        let tokenizer = handle::share::<Tokenizer>(tokenizer)?;
        tokens.set(tokenizer.vocab_size());
        pad_id.set(tokenizer.pad_id());
        Ok(())
    })
}

/// The id of a token; WEFT_STATUS_UNKNOWN_NAME for an unknown token.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_tokenizer_token_id(
    tokenizer: *const weft_tokenizer,
    token: *const c_char,
    token_length: usize,
    id: *mut u32,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_tokenizer_token_id", err, || {
        let place = out(id, "id")?;
        // SAFETY: the preamble's promise.
        let token = unsafe { name(token, token_length, "token") }?;
        let found = handle::share::<Tokenizer>(tokenizer)?.token_to_id(token);
        let message = || format!("no token \"{token}\" in the vocabulary");
        place.set(found.ok_or_else(|| Failure::new(WEFT_STATUS_UNKNOWN_NAME, message()))?);
        Ok(())
    })
}

/// The token of an id; WEFT_STATUS_UNKNOWN_NAME for an unknown id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_tokenizer_token(
    tokenizer: *const weft_tokenizer,
    id: u32,
    token: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_tokenizer_token", err, || {
        let place = out(token, "token")?;
        let found = handle::share::<Tokenizer>(tokenizer)?.id_to_token(id);
        let message = || format!("no token of id {id} in the vocabulary");
        let found = found.ok_or_else(|| Failure::new(WEFT_STATUS_UNKNOWN_NAME, message()))?;
        give(place, BytesObject::new(found))
    })
}

/// Frees a tokenizer. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_tokenizer_free(tokenizer: *mut weft_tokenizer) -> weft_status {
    guard("weft_tokenizer_free", std::ptr::null_mut(), || handle::free::<Tokenizer>(tokenizer))
}

/// Tokens of a text: arrays of `count` elements each, which belong to the encoding.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_tokens {
    /// Set it to sizeof before the call.
    pub struct_size: usize,
    /// Number of tokens.
    pub count: usize,
    /// Token ids, special tokens included.
    pub ids: *const u32,
    /// The text of a pair that each token belongs to, 0 or 1.
    pub type_ids: *const u32,
    /// 1 for special tokens that the tokenizer added.
    pub special: *const u8,
    /// 1 if the text was truncated.
    pub truncated: u32,
    /// 0.
    pub reserved: u32,
}
// SAFETY: plain data, the size first.
unsafe impl Versioned for weft_tokens {
    const DEFAULT: Self = weft_tokens {
        struct_size: size_of::<Self>(),
        count: 0,
        ids: std::ptr::null(),
        type_ids: std::ptr::null(),
        special: std::ptr::null(),
        truncated: 0,
        reserved: 0,
    };
}

/// The tokens, valid until the encoding is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoding_get(
    encoding: *const weft_encoding,
    tokens: *mut weft_tokens,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_encoding_get", err, || {
        let found = handle::share::<Tokens>(encoding)?;
        let described = weft_tokens {
            struct_size: size_of::<weft_tokens>(),
            count: found.ids.len(),
            ids: found.ids.as_ptr(),
            type_ids: found.type_ids.as_ptr(),
            special: found.special.as_ptr(),
            truncated: u32::from(found.truncated),
            reserved: 0,
        };
        // SAFETY: the preamble's promise.
        unsafe { fill(tokens, described, "tokens") }
    })
}

/// Frees an encoding. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoding_free(encoding: *mut weft_encoding) -> weft_status {
    guard("weft_encoding_free", std::ptr::null_mut(), || handle::free::<Tokens>(encoding))
}

/// Opens a sentence encoder from a Hugging Face or sentence-transformers folder (BERT, DistilBERT, RoBERTa, XLM-RoBERTa,
/// CamemBERT, MPNet, ModernBERT): maps its weights, packs them for the device, reads its tokenizer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoder_open(
    device: *const weft_device,
    folder: *const c_char,
    folder_length: usize,
    precision: weft_precision,
    encoder: *mut *mut weft_encoder,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_encoder_open", err, || {
        let place = out(encoder, "encoder")?;
        // SAFETY: the preamble's promise.
        let folder = unsafe { name(folder, folder_length, "folder") }?;
        let precision = crate::compile::precision(precision)?;
        let device = handle::share::<Device>(device)?;
        give(place, Encoder::open_with(folder, &device, precision)?)
    })
}

/// Components of an embedding, and maximum tokens of a text: longer ones are truncated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoder_sizes(
    encoder: *const weft_encoder,
    components: *mut usize,
    max_tokens: *mut usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_encoder_sizes", err, || {
        let (components, tokens) = (out(components, "components")?, out(max_tokens, "max_tokens")?);
        let encoder = handle::share::<Encoder>(encoder)?;
        components.set(encoder.hidden_size());
        tokens.set(encoder.max_tokens());
        Ok(())
    })
}

/// Prefixes later texts with the model's prompt of that name; NULL restores the model's default prompt, which is the initial
/// one. Every model has prompts named "query" and "document", which may be empty. WEFT_STATUS_UNKNOWN_NAME for an unknown name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoder_set_prompt_name(
    encoder: *mut weft_encoder,
    prompt_name: *const c_char,
    prompt_name_length: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_encoder_set_prompt_name", err, || {
        let prompt = match prompt_name.is_null() {
            true => Prompt::Default,
            // SAFETY: the preamble's promise.
            false => Prompt::Name(unsafe { name(prompt_name, prompt_name_length, "prompt_name") }?),
        };
        Ok(handle::alone::<Encoder>(encoder)?.set_prompt(prompt)?)
    })
}

/// Prefixes later texts with a text, instead of the model's prompts; NULL: no prefix.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoder_set_prompt(
    encoder: *mut weft_encoder,
    prompt: *const c_char,
    prompt_length: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_encoder_set_prompt", err, || {
        let prompt = match prompt.is_null() {
            true => Prompt::None,
            // SAFETY: the preamble's promise.
            false => Prompt::Text(unsafe { text(prompt, prompt_length, "prompt") }?),
        };
        Ok(handle::alone::<Encoder>(encoder)?.set_prompt(prompt)?)
    })
}

/// Uses the graphs of an artifact that match this encoder, so that their sizes are not compiled again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoder_add_artifact(
    encoder: *mut weft_encoder,
    artifact: *const weft_artifact,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_encoder_add_artifact", err, || {
        let artifact = handle::share::<Artifact>(artifact)?;
        handle::alone::<Encoder>(encoder)?.add_artifact(&artifact)?;
        Ok(())
    })
}

/// Embeds texts: `embeddings` has room for `texts_count` times the components, in the order of the texts. `progress` (may be
/// NULL) gets the number of texts done, on this thread. Compiles sizes on first use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoder_embed(
    encoder: *mut weft_encoder,
    texts: *const weft_str,
    texts_count: usize,
    embeddings: *mut f32,
    embeddings_count: usize,
    progress: weft_progress_fn,
    user_data: *mut c_void,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_encoder_embed", err, || {
        // SAFETY: the preamble's promise.
        let (texts, embeddings) = unsafe {
            let texts = array(texts, texts_count, "texts")?.iter();
            let texts = texts.map(|t| text(t.data, t.length, "text")).collect::<Outcome<Vec<_>>>()?;
            (texts, array_mut(embeddings, embeddings_count, "embeddings")?)
        };
        let encoder = handle::share::<Encoder>(encoder)?;
        let size = encoder.hidden_size();
        if texts.len().checked_mul(size) != Some(embeddings.len()) {
            let wanted = format!("{} texts of {size} components", texts.len());
            return Err(Failure::argument("embeddings", wanted, format!("{} elements", embeddings.len())));
        }
        let mut see = |done, all| {
            if let Some(progress) = progress {
                // SAFETY: the caller gave the function for this, with its data.
                unsafe { progress(user_data, done, all) }
            }
        };
        let found = encoder.embed_with(&texts, &mut see)?;
        for (place, e) in embeddings.chunks_exact_mut(size).zip(&found) {
            place.copy_from_slice(&e.embedding);
        }
        Ok(())
    })
}

/// Memory of the encoder's largest session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoder_memory_summary(
    encoder: *const weft_encoder,
    summary: *mut weft_memory_summary,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_encoder_memory_summary", err, || {
        let encoder = handle::share::<Encoder>(encoder)?;
        // SAFETY: the preamble's promise.
        unsafe { fill(summary, memory_summary(&encoder.memory_summary()), "summary") }
    })
}

/// Frees an encoder. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_encoder_free(encoder: *mut weft_encoder) -> weft_status {
    guard("weft_encoder_free", std::ptr::null_mut(), || handle::free::<Encoder>(encoder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::{null, null_mut};

    /// Called in the middle of embedding: others may use the encoder, and nobody may change it.
    unsafe extern "C" fn meanwhile(user_data: *mut c_void, _: usize, _: usize) {
        let encoder: *mut weft_encoder = user_data.cast();
        let (mut components, mut tokens) = (0, 0);
        // SAFETY: a handle, places of our own, and names that may be NULL.
        unsafe {
            assert_eq!(weft_encoder_sizes(encoder, &mut components, &mut tokens, null_mut()), 0);
            let changed = weft_encoder_set_prompt_name(encoder, null(), 0, null_mut());
            assert_eq!(changed, WEFT_STATUS_BUSY);
            assert_eq!(weft_encoder_free(encoder), WEFT_STATUS_BUSY);
        }
    }

    #[test]
    fn threads_share_an_encoder_and_nobody_changes_it_meanwhile() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert");
        let encoder = Encoder::open(folder, &Device::cpu(1)).unwrap();
        let wanted = encoder.embed(&["a text"]).unwrap().remove(0).embedding;
        let handle = handle::put(encoder).ok().unwrap() as usize;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let wanted = &wanted;
                scope.spawn(move || {
                    let text = weft_str { data: c"a text".as_ptr(), length: 6 };
                    let mut found = vec![0f32; wanted.len()];
                    for _ in 0..8 {
                        let (place, room) = (found.as_mut_ptr(), found.len());
                        let encoder = handle as *mut weft_encoder;
                        // SAFETY: one text, and room for its embedding.
                        let status = unsafe {
                            weft_encoder_embed(
                                encoder,
                                &text,
                                1,
                                place,
                                room,
                                Some(meanwhile),
                                encoder.cast(),
                                null_mut(),
                            )
                        };
                        assert_eq!((status, &found), (0, wanted));
                    }
                });
            }
        });
        // SAFETY: the handle, which nobody uses any more.
        assert_eq!(unsafe { weft_encoder_free(handle as *mut weft_encoder) }, 0);
    }
}
