package customcheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/managemyclaw/hardshell/harden"
	"github.com/managemyclaw/hardshell/harden/host"
)

// A PrivateKey is what [JudgePrivateKey] needs to know about one.
type PrivateKey struct {
	Path  string
	Mode  fs.FileMode
	Known bool // whether Mode could be found out
}

// PrivateKeyInfo describes the check of [PrivateKeys].
func PrivateKeyInfo() harden.Info {
	return harden.Info{
		ID:       "ssh.private_keys",
		Title:    "Private SSH keys are private",
		Doc:      "A key that others can read is theirs too. Take their permissions away with chmod 600.",
		Severity: harden.SeverityHigh,
		Requires: harden.LevelInspected,
	}
}

// PrivateKeys returns a check that judges each of the keys below /home.
func PrivateKeys() harden.Check {
	return harden.Each(PrivateKeyInfo(), &harden.Source[PrivateKey]{
		Name:    "private SSH keys",
		List:    listPrivateKeys,
		Subject: func(k PrivateKey) string { return k.Path },
	}, JudgePrivateKey)
}

// JudgePrivateKey fails a key that anybody but its owner has access to.
func JudgePrivateKey(_ context.Context, k PrivateKey) (harden.Verdict, error) {
	if !k.Known {
		return harden.Verdict{}, errors.New("its mode could not be found out")
	}
	if k.Mode.Perm()&0o077 != 0 {
		return harden.Fail(harden.Finding{Message: fmt.Sprintf("others have access: mode %04o", k.Mode.Perm())}), nil
	}
	return harden.Pass(harden.Evidence{
		Source: k.Path, Observed: k.Mode.String(), Expected: "no access for others", Level: harden.LevelInspected,
	}), nil
}

func listPrivateKeys(ctx context.Context, v *host.View) ([]PrivateKey, error) {
	homes, err := v.ReadDir("/home")
	if err != nil {
		return nil, err
	}
	var all []PrivateKey
	for _, home := range homes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dir := "/home/" + home.Name() + "/.ssh/"
		files, err := v.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if !strings.HasPrefix(f.Name(), "id_") || strings.HasSuffix(f.Name(), ".pub") {
				continue
			}
			k := PrivateKey{Path: dir + f.Name()}
			if info, err := v.Stat(k.Path); err == nil {
				k.Mode, k.Known = info.Mode(), true
			}
			all = append(all, k)
		}
	}
	return all, nil
}
