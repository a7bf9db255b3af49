//! The whole way from a product to an image: resolve → compose → assemble → commit → sign → image.

pub mod locked;
