//go:build !linux

package main

import "errors"

// refuseNFTables needs Linux, as nftables do.
func refuseNFTables() error { return errors.ErrUnsupported }
