//! A snapshot: an agent's state as it is kept, with a header that says whose it is and a checksum
//! over all of it.
