//! Runbooks and tables of alerts are embedded by a macro, and cargo only knows of those that were there when it last looked.

fn main() {
    println!("cargo::rerun-if-changed=library");
    println!("cargo::rerun-if-changed=alerts");
}
