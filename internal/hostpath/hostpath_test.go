package hostpath

import (
	"path"
	"testing"
)

// What is in a part of the system is too, and what holds it is not ordinary,
// up to the root, read-only or not.
func TestTrees(t *testing.T) {
	for _, tree := range systemTrees {
		for _, readOnly := range []bool{false, true} {
			for _, name := range []string{tree, tree + "/x/y", tree + "/", "/" + tree, tree + "/../" + path.Base(tree)} {
				if kind, about := Classify(name, readOnly); kind != System {
					t.Errorf("%s is %v (%s)", name, kind, about)
				}
			}
			for up := path.Dir(tree); ; up = path.Dir(up) {
				if kind, _ := Classify(up, readOnly); kind == Ordinary {
					t.Errorf("%s holds %s and is ordinary", up, tree)
				}
				if up == "/" {
					break
				}
			}
		}
		if kind, _ := Classify(tree+"-and-more", false); kind == System {
			t.Errorf("%s-and-more only begins like it", tree)
		}
	}
}

func TestHomes(t *testing.T) {
	for _, home := range []string{"/root", "/home/alice", "/var/home/alice"} {
		if kind, _ := Classify(home, true); kind != Home {
			t.Errorf("%s is %v", home, kind)
		}
		for _, p := range private {
			for _, name := range []string{p, p + "/x", path.Dir(p)} {
				kind, _ := Classify(path.Join(home, name), true)
				if kind != Private && kind != Home {
					t.Errorf("%s/%s is %v", home, name, kind)
				}
			}
		}
		for _, name := range []string{".openclaw", "projects/x", ".sshx"} {
			if kind, about := Classify(home+"/"+name, false); kind != Ordinary {
				t.Errorf("%s/%s is %v (%s)", home, name, kind, about)
			}
		}
	}
}

func TestHarmless(t *testing.T) {
	for _, h := range harmless {
		if kind, _ := Classify(h, true); kind != Ordinary {
			t.Errorf("%s, read-only, is %v", h, kind)
		}
		if kind, _ := Classify(h, false); kind == Ordinary {
			t.Errorf("%s may be mounted to be written", h)
		}
		if kind, _ := Classify(path.Dir(h), true); kind == Ordinary {
			t.Errorf("what holds %s is ordinary", h)
		}
	}
}

// Whatever the spelling: what is clean the same is the same, and no path above
// a sensitive one is ordinary.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"/", "/etc/../etc", "//etc//shadow", "/home/a/.ssh", "/srv/x", "../etc", ""} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, name string, readOnly bool) {
		kind, _ := Classify(name, readOnly)
		if again, _ := Classify(path.Clean("/"+name), readOnly); again != kind {
			t.Errorf("%q is %v, and clean it is %v", name, kind, again)
		}
		if up := path.Dir(path.Clean("/" + name)); kind != Ordinary {
			if k, _ := Classify(up, readOnly); k == Ordinary {
				t.Errorf("%q is %v, and %q above it is ordinary", name, kind, up)
			}
		}
	})
}
