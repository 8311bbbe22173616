"""Everything that touches a loop or a socket, L3; each module says what it alone decides."""
