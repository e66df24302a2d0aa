//! Sentence encoders from a Hugging Face folder.

use crate::artifact::NativeArtifact;
use crate::device::NativeDevice;
use crate::error::Result;
use crate::owned::{Handle, Owned};
use crate::types::{ComputePrecision, Memory};
use abi::shared::caught;
use engine::models::{Encoder, Prompt};
use std::sync::Arc;

/// The prompt put before texts.
#[derive(Debug, Clone, PartialEq, uniffi::Enum)]
pub enum TextPrompt {
    /// The model's default prompt; often empty.
    Default,
    /// No prompt.
    None,
    /// The model's prompt of this name.
    Named {
        /// The name.
        name: String,
    },
    /// This text.
    Text {
        /// The text.
        text: String,
    },
}

/// A sentence encoder. Threads may share it; setting a prompt and adding an artifact need it alone.
#[derive(uniffi::Object)]
pub struct NativeEncoder {
    pub(crate) of: Owned<Encoder>,
}

#[uniffi::export]
impl NativeEncoder {
    /// Opens a folder.
    #[uniffi::constructor]
    pub fn open(
        device: Arc<NativeDevice>,
        folder: String,
        precision: ComputePrecision,
    ) -> Result<Arc<NativeEncoder>> {
        caught("encoder_open", || {
            let encoder = Encoder::open_with(folder, &*device.of.share()?, precision.into())?;
            Ok(Arc::new(NativeEncoder { of: Owned::new(encoder)? }))
        })
    }

    /// Components of an embedding.
    pub fn components(&self) -> Result<i32> {
        caught("encoder_components", || Ok(self.of.share()?.hidden_size() as i32))
    }

    /// Tokens that are read of a text at most.
    pub fn max_tokens(&self) -> Result<i32> {
        caught("encoder_max_tokens", || Ok(self.of.share()?.max_tokens() as i32))
    }

    /// What was odd in the folder and did not matter.
    pub fn warnings(&self) -> Result<Vec<String>> {
        caught("encoder_warnings", || Ok(self.of.share()?.warnings().to_vec()))
    }

    /// What its sessions take.
    pub fn memory(&self) -> Result<Memory> {
        caught("encoder_memory", || Ok(self.of.share()?.memory_summary().into()))
    }

    /// Sets the prompt put before texts from now on.
    pub fn set_prompt(&self, prompt: TextPrompt) -> Result<()> {
        caught("encoder_set_prompt", || {
            let prompt = match &prompt {
                TextPrompt::Default => Prompt::Default,
                TextPrompt::None => Prompt::None,
                TextPrompt::Named { name } => Prompt::Name(name),
                TextPrompt::Text { text } => Prompt::Text(text),
            };
            Ok(self.of.alone()?.set_prompt(prompt)?)
        })
    }

    /// Takes sizes that were compiled ahead from an artifact; returns how many.
    pub fn add_artifact(&self, artifact: Arc<NativeArtifact>) -> Result<i32> {
        caught("encoder_add_artifact", || {
            let artifact = artifact.of.share()?;
            Ok(self.of.alone()?.add_artifact(&artifact)? as i32)
        })
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees the encoder.
    pub fn release(&self) -> Result<()> {
        caught("encoder_release", || self.of.close())
    }
}
