//! The binary `thence`: parse, call, print.

fn main() -> std::process::ExitCode {
    thence::cli::run(std::env::args_os())
}
