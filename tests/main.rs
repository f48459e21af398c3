//! The promises of assent, one file each, in one test binary (`tests/run` runs them all).
//! A file is named as a user would name the promise it keeps.
