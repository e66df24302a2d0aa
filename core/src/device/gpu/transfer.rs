//! Copies between host and device, through staging memory, in pieces.

use super::context::{Context, Memory};
use crate::error::Result;
use blade_graphics as blade;
use std::sync::Arc;

/// Maximum bytes of one copy.
const PIECE: usize = 16 << 20;

/// An encoder for copies, and host staging memory, created on first use.
pub struct Transfer {
    context: Arc<Context>,
    encoder: Option<blade::CommandEncoder>,
    upload: Option<Memory>,
    download: Option<Memory>,
}

impl Transfer {
    /// Copies of a device.
    pub fn new(context: &Arc<Context>) -> Transfer {
        Transfer { context: context.clone(), encoder: None, upload: None, download: None }
    }

    fn host(&mut self, up: bool, bytes: usize) -> Result<Memory> {
        let wanted = bytes.clamp(64 << 10, PIECE).next_power_of_two();
        let (slot, kind, what) = match up {
            true => (&mut self.upload, blade::Memory::Upload, "copies to the device"),
            false => (&mut self.download, blade::Memory::Download, "copies from the device"),
        };
        if slot.is_none_or(|m| m.bytes < wanted as u64) {
            if let Some(old) = slot.take() {
                self.context.free(old);
            }
            *slot = Some(self.context.allocate(wanted, kind, what)?);
        }
        slot.ok_or_else(|| crate::error::Error::internal("no memory for copies"))
    }

    fn submit(&mut self, record: impl FnOnce(&mut blade::TransferCommandEncoder<'_>)) -> Result<()> {
        let context = self.context.clone();
        let encoder = self.encoder.get_or_insert_with(|| {
            context.blade.create_command_encoder(blade::CommandEncoderDesc {
                name: "weft copies",
                buffer_count: 1,
                manual_barriers: false,
            })
        });
        encoder.start();
        record(&mut encoder.transfer("copy"));
        let point = context.blade.submit(encoder);
        context.finish(&point)
    }

    /// Copies bytes to the device; complete on return.
    ///
    /// # Errors
    /// Out of memory, or the device is lost.
    pub fn upload(&mut self, to: blade::BufferPiece, bytes: &[u8]) -> Result<()> {
        for (n, piece) in bytes.chunks(PIECE).enumerate() {
            let host = self.host(true, bytes.len())?;
            let size = piece.len().next_multiple_of(4);
            // SAFETY: the buffer is mapped and at least so long (a multiple of 4), and the GPU is not reading it: every
            // copy is waited for.
            unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), host.buffer.data(), piece.len()) };
            let to = to.buffer.at(to.offset + (n * PIECE) as u64);
            self.submit(|t| t.copy_buffer_to_buffer(host.buffer.at(0), to, size as u64))?;
        }
        Ok(())
    }

    /// Copies bytes from the device.
    ///
    /// # Errors
    /// Out of memory, or the device is lost.
    pub fn download(&mut self, from: blade::BufferPiece, bytes: &mut [u8]) -> Result<()> {
        let total = bytes.len();
        for (n, piece) in bytes.chunks_mut(PIECE).enumerate() {
            let host = self.host(false, total)?;
            let size = piece.len().next_multiple_of(4);
            let from = from.buffer.at(from.offset + (n * PIECE) as u64);
            self.submit(|t| t.copy_buffer_to_buffer(from, host.buffer.at(0), size as u64))?;
            // SAFETY: the buffer is mapped, at least so long, and the copy is done.
            unsafe { std::ptr::copy_nonoverlapping(host.buffer.data(), piece.as_mut_ptr(), piece.len()) };
        }
        Ok(())
    }

    /// Copies bytes to the pieces of a buffer, divided at the maximum binding.
    ///
    /// # Errors
    /// As [`upload`](Transfer::upload).
    pub fn upload_pieces(
        &mut self,
        to: impl IntoIterator<Item = blade::BufferPiece>,
        bytes: &[u8],
    ) -> Result<()> {
        let chunk = self.context.limits.binding;
        bytes.chunks(chunk).zip(to).try_for_each(|(part, piece)| self.upload(piece, part))
    }

    /// Copies bytes from the pieces of a buffer, divided at the maximum binding.
    ///
    /// # Errors
    /// As [`download`](Transfer::download).
    pub fn download_pieces(
        &mut self,
        from: impl IntoIterator<Item = blade::BufferPiece>,
        bytes: usize,
    ) -> Result<Vec<u8>> {
        let chunk = self.context.limits.binding;
        let mut all = crate::tensor::zeros(bytes, "what is read from the device")?;
        all.chunks_mut(chunk).zip(from).try_for_each(|(part, piece)| self.download(piece, part))?;
        Ok(all)
    }

    /// Fills bytes of the device.
    ///
    /// # Errors
    /// The device is lost.
    pub fn fill(&mut self, pieces: &[(blade::BufferPiece, u64)], value: u8) -> Result<()> {
        self.submit(|t| pieces.iter().for_each(|&(piece, size)| t.fill_buffer(piece, size, value)))
    }

    /// Frees its memory.
    pub fn close(mut self, context: &Context) {
        if let Some(mut encoder) = self.encoder.take() {
            context.blade.destroy_command_encoder(&mut encoder);
        }
        [self.upload.take(), self.download.take()].into_iter().flatten().for_each(|m| context.free(m));
    }
}
