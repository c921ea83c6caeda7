//! The `blockseal` program: see `cli`.

fn main() {}
