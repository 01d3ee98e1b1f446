package firewall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SavePolicy writes p to a file, for [Restore]. When it returns nil the policy
// is on the disk, and at no moment is there half of it: not after a
// crash either. Only the owner may read or write the file.
func SavePolicy(name string, p Policy) (err error) {
	if err := p.Validate(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("firewall: save policy: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("firewall: save policy: %w", err)
		}
	}()
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+"-*") // for the owner only
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // fails once it is renamed
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncDir(dir)
}

// maxPolicy is far more than a policy takes that names every port.
const maxPolicy = 16 << 20

// LoadPolicy reads a file that SavePolicy wrote.
func LoadPolicy(name string) (Policy, error) {
	info, err := os.Stat(name)
	if err != nil {
		return Policy{}, fmt.Errorf("firewall: load policy: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxPolicy {
		return Policy{}, fmt.Errorf("firewall: load policy: %s is not a file that SavePolicy wrote", name)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return Policy{}, fmt.Errorf("firewall: load policy: %w", err)
	}
	p, err := ParsePolicy(data)
	if err != nil {
		return Policy{}, fmt.Errorf("firewall: load policy: %s: %w", name, err)
	}
	return p, nil
}

// Restore applies the policy that SavePolicy wrote, before the engine starts:
// see [Units]. The policy needs neither the engine nor its networks to be
// there. A file that is missing or damaged is an error, and must keep the
// engine from starting: there is no telling what it would expose.
func Restore(ctx context.Context, name string, b Backend) (Policy, error) {
	p, err := LoadPolicy(name)
	if err != nil {
		return Policy{}, err
	}
	if err := b.Apply(ctx, p); err != nil {
		return Policy{}, fmt.Errorf("firewall: restore: %w", err)
	}
	return p, nil
}
