//! `peer`: arguments to exit code. Everything else is in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: relay::allocator::Allocator = relay::allocator::Allocator;

fn main() -> ExitCode {
    relay::allocator::reserve_little();
    relay::peer::main_with_args(std::env::args_os())
}
