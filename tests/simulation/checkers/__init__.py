"""One file per invariant: each looks at a world after every moment, or at its end, and says in words what is broken."""
