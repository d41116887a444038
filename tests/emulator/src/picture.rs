//! Images as the emulated nodes hold them: mostly one colour, so that a megapixel costs nothing until it is
//! written; real rasters only where a client uploaded one.

use std::{io::Cursor, sync::Arc};

use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Transformations};

#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pixels: Pixels,
}

#[derive(Debug, Clone)]
enum Pixels {
    Solid([u8; 4]),
    Rgba(Arc<[u8]>),
}

/// Which samples a PNG keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channels {
    Rgb,
    Rgba,
    /// RGBA whose colour is black and whose alpha is the picture's own.
    Alpha,
}

impl Picture {
    pub(crate) fn solid(width: u32, height: u32, [r, g, b]: [u8; 3]) -> Self {
        Self { width: width.max(1), height: height.max(1), pixels: Pixels::Solid([r, g, b, 255]) }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().ok()?;
        let mut buffer = vec![0; reader.output_buffer_size()?];
        let info = reader.next_frame(&mut buffer).ok()?;
        buffer.truncate(info.buffer_size());
        let rgba: Vec<u8> = match info.color_type {
            ColorType::Rgba => buffer,
            ColorType::Rgb => buffer.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect(),
            ColorType::GrayscaleAlpha => {
                buffer.chunks_exact(2).flat_map(|p| [p[0], p[0], p[0], p[1]]).collect()
            }
            _ => buffer.iter().flat_map(|&g| [g, g, g, 255]).collect(),
        };
        Some(Self { width: info.width, height: info.height, pixels: Pixels::Rgba(rgba.into()) })
    }

    pub(crate) fn pixel(&self, x: u32, y: u32) -> [u8; 4] {
        match &self.pixels {
            Pixels::Solid(colour) => *colour,
            Pixels::Rgba(data) => {
                let at = (y as usize * self.width as usize + x as usize) * 4;
                [data[at], data[at + 1], data[at + 2], data[at + 3]]
            }
        }
    }

    /// Nearest neighbour; a width or height of 0 follows the other, both 0 keep the size (`ImageScale`).
    pub(crate) fn scaled(&self, width: u32, height: u32) -> Self {
        let ratio =
            |of: u32, by: u32, to: u32| ((u64::from(of) * u64::from(to) / u64::from(by)) as u32).max(1);
        let (width, height) = match (width, height) {
            (0, 0) => (self.width, self.height),
            (0, height) => (ratio(self.width, self.height, height), height),
            (width, 0) => (width, ratio(self.height, self.width, width)),
            both => both,
        };
        self.sampled(width, height, |x, y| (ratio0(x, width, self.width), ratio0(y, height, self.height)))
    }

    pub(crate) fn cropped(&self, x: u32, y: u32, width: u32, height: u32) -> Self {
        let (x, y) = (x.min(self.width - 1), y.min(self.height - 1));
        let (width, height) = (width.min(self.width - x).max(1), height.min(self.height - y).max(1));
        self.sampled(width, height, |dx, dy| (x + dx, y + dy))
    }

    fn sampled(&self, width: u32, height: u32, source: impl Fn(u32, u32) -> (u32, u32)) -> Self {
        let pixels = match &self.pixels {
            Pixels::Solid(colour) => Pixels::Solid(*colour),
            Pixels::Rgba(_) => {
                let mut data = Vec::with_capacity(width as usize * height as usize * 4);
                for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
                    let (sx, sy) = source(x, y);
                    data.extend_from_slice(&self.pixel(sx, sy));
                }
                Pixels::Rgba(data.into())
            }
        };
        Self { width, height, pixels }
    }

    /// This picture's colours with the alpha of `mask`, as `/upload/mask` stores it.
    pub(crate) fn with_alpha_of(&self, mask: &Self) -> Self {
        let mask = mask.scaled(self.width, self.height);
        let mut data = Vec::with_capacity(self.width as usize * self.height as usize * 4);
        for (x, y) in (0..self.height).flat_map(|y| (0..self.width).map(move |x| (x, y))) {
            let [r, g, b, _] = self.pixel(x, y);
            data.extend_from_slice(&[r, g, b, mask.pixel(x, y)[3]]);
        }
        Self { width: self.width, height: self.height, pixels: Pixels::Rgba(data.into()) }
    }

    pub(crate) fn png(&self, channels: Channels, texts: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, self.width, self.height);
        encoder.set_color(if channels == Channels::Rgb { ColorType::Rgb } else { ColorType::Rgba });
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::Fast);
        for (key, text) in texts {
            encoder.add_text_chunk((*key).into(), (*text).into()).expect("a short latin keyword");
        }
        let mut writer = encoder.write_header().expect("a memory buffer takes every write");
        writer.write_image_data(&self.samples(channels)).expect("samples match the header");
        writer.finish().expect("a memory buffer takes every write");
        out
    }

    pub(crate) fn jpeg(&self, quality: u8) -> Vec<u8> {
        let small = self.fitted(u16::MAX.into());
        let mut out = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut out, quality.clamp(1, 100));
        let (width, height) = (small.width as u16, small.height as u16);
        encoder
            .encode(&small.samples(Channels::Rgb), width, height, jpeg_encoder::ColorType::Rgb)
            .expect("a memory buffer takes every write");
        out
    }

    pub(crate) fn webp(&self) -> Vec<u8> {
        let small = self.fitted(16_383);
        let mut out = Vec::new();
        image_webp::WebPEncoder::new(&mut out)
            .encode(&small.samples(Channels::Rgba), small.width, small.height, image_webp::ColorType::Rgba8)
            .expect("a memory buffer takes every write");
        out
    }

    /// The longest side at most `side`.
    pub(crate) fn fitted(&self, side: u32) -> Self {
        match self.width.max(self.height) {
            longest if longest <= side => self.clone(),
            _ if self.width >= self.height => self.scaled(side, 0),
            _ => self.scaled(0, side),
        }
    }

    fn samples(&self, channels: Channels) -> Vec<u8> {
        let count = self.width as usize * self.height as usize;
        match (&self.pixels, channels) {
            (Pixels::Solid([r, g, b, _]), Channels::Rgb) => [*r, *g, *b].repeat(count),
            (Pixels::Solid(colour), Channels::Rgba) => colour.repeat(count),
            (Pixels::Solid([.., a]), Channels::Alpha) => [0, 0, 0, *a].repeat(count),
            (Pixels::Rgba(data), Channels::Rgba) => data.to_vec(),
            (Pixels::Rgba(data), Channels::Rgb) => {
                data.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect()
            }
            (Pixels::Rgba(data), Channels::Alpha) => {
                data.chunks_exact(4).flat_map(|p| [0, 0, 0, p[3]]).collect()
            }
        }
    }
}

fn ratio0(position: u32, of: u32, to: u32) -> u32 {
    (u64::from(position) * u64::from(to) / u64::from(of)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_holds_the_colour_and_size() {
        let bytes = Picture::solid(7, 3, [1, 2, 3]).png(Channels::Rgb, &[("prompt", "{}")]);
        let back = Picture::decode(&bytes).expect("our own png");
        assert_eq!((back.width, back.height, back.pixel(6, 2)), (7, 3, [1, 2, 3, 255]));
        assert!(bytes.windows(4).any(|chunk| chunk == b"tEXt"));
    }

    #[test]
    fn scaling_follows_the_given_side() {
        let wide = Picture::solid(100, 50, [9; 3]);
        assert_eq!(
            (wide.scaled(0, 25).width, wide.scaled(10, 0).height, wide.scaled(0, 0).width),
            (50, 5, 100)
        );
        assert_eq!(wide.fitted(10).height, 5);
    }

    #[test]
    fn masks_replace_alpha_only() {
        let mask = Picture::decode(&Picture::solid(2, 2, [0; 3]).png(Channels::Alpha, &[])).expect("png");
        assert_eq!(Picture::solid(2, 2, [5, 6, 7]).with_alpha_of(&mask).pixel(1, 1), [5, 6, 7, 255]);
    }

    #[test]
    fn jpeg_and_webp_start_with_their_magic() {
        let picture = Picture::solid(16, 16, [200, 10, 10]);
        assert_eq!(picture.jpeg(90)[..3], [0xff, 0xd8, 0xff]);
        assert_eq!(picture.webp()[8..12], *b"WEBP");
    }
}
