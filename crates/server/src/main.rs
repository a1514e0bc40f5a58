//! The binary `insforge-cloud`. Everything of interest is in the library.

fn main() -> std::process::ExitCode {
    cp_server::main()
}
