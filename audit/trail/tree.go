package trail

import (
	"crypto/sha256"
	"hash"
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
	var x hasher
	return f.extend(&x, h, stored)
}

// extend is add with a hasher that is kept.
func (f *frontier) extend(x *hasher, h Hash, stored []Hash) []Hash {
	stored = append(stored, h)
	level := 0
	for ; f.n>>level&1 == 1; level++ {
		stored = append(stored, *x.node(&f.peaks[level], &stored[level]))
	}
	f.peaks[level] = stored[len(stored)-1]
	f.n++
	return stored
}

// A hasher computes hashes without allocating.
type hasher struct {
	sha hash.Hash
	in  [1 + 2*tlog.HashSize]byte
	out Hash
}

// of returns the SHA-256 of data. It is valid until the next call.
func (x *hasher) of(data []byte) *Hash {
	if x.sha == nil {
		x.sha = sha256.New()
	} else {
		x.sha.Reset()
	}
	_, _ = x.sha.Write(data)
	x.sha.Sum(x.out[:0])
	return &x.out
}

// node is tlog.NodeHash: RFC 6962, section 2.1.
func (x *hasher) node(left, right *Hash) *Hash {
	x.in[0] = 1
	copy(x.in[1:], left[:])
	copy(x.in[1+tlog.HashSize:], right[:])
	return x.of(x.in[:])
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
