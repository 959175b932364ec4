//! What the bot says about a drill, read through its command line.
