//! The `lapwing` command.

fn main() -> std::process::ExitCode {
    lapwing::cli::run()
}
