//go:build !unix

package firewall

// syncDir does nothing: directories cannot be synchronized here.
func syncDir(string) error { return nil }
