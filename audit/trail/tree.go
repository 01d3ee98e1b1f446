package trail

import (
	"crypto/sha256"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// A Hash is a SHA-256 hash: of a record, of a node of the tree, or of its root.
type Hash = tlog.Hash

// A frontier is a Merkle tree to which records are added at the end, reduced to
// the roots of its full subtrees: what is needed to go on. See RFC 6962,
// section 2.1.
type frontier struct {
	n     int64    // records
	peaks [63]Hash // peaks[i] is the root of a subtree of 2^i records, if n has bit i
}

// add adds a record and appends the hashes that it completes to stored, in the
// order of tlog.StoredHashIndex.
func (f *frontier) add(h Hash, stored []Hash) []Hash {
	stored = append(stored, h)
	level := 0
	for ; f.n>>level&1 == 1; level++ {
		h = tlog.NodeHash(f.peaks[level], h)
		stored = append(stored, h)
	}
	f.peaks[level] = h
	f.n++
	return stored
}

// root returns the hash of the tree.
func (f *frontier) root() Hash {
	if f.n == 0 {
		return sha256.Sum256(nil)
	}
	level := bits.TrailingZeros64(uint64(f.n))
	h := f.peaks[level]
	for level++; f.n>>level != 0; level++ {
		if f.n>>level&1 == 1 {
			h = tlog.NodeHash(f.peaks[level], h)
		}
	}
	return h
}

// equal reports whether f and g are the same tree.
func (f *frontier) equal(g *frontier) bool {
	if f.n != g.n {
		return false
	}
	for level := 0; f.n>>level != 0; level++ {
		if f.n>>level&1 == 1 && f.peaks[level] != g.peaks[level] {
			return false
		}
	}
	return true
}
