//! What the linker has to know, and a warning about the wrong profile.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A program may close the library and still run code of it: destructors of thread-local values run
    // when their threads end. So it stays mapped once it has been loaded; loading it again is free.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    if std::env::var("CARGO_CFG_PANIC").is_ok_and(|panic| panic == "abort") {
        println!(
            "cargo::warning=a panic in this build of the library ends the program that loaded it: build the \
             one to be installed with --profile c-abi"
        );
    }
}
