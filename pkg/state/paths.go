package state

import (
	"errors"
	"fmt"
	"path/filepath"
)

// DefaultDir is $XDG_STATE_HOME/capplunder/state, or
// ~/.local/state/capplunder/state where XDG_STATE_HOME is not set to an absolute
// path (XDG Base Directory Specification). getenv is os.Getenv, or a test's.
func DefaultDir(getenv func(string) string) (string, error) {
	home := getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(home) {
		user := getenv("HOME")
		if user == "" {
			user = getenv("USERPROFILE") // Windows
		}
		if !filepath.IsAbs(user) {
			return "", errors.New("no place for the local store: neither XDG_STATE_HOME nor HOME is set; give one with --state-dir")
		}
		home = filepath.Join(user, ".local", "state")
	}
	return filepath.Join(home, "capplunder", "state"), nil
}

// SimulatedDir is where simulated runs keep their state when real ones keep it in
// dir: beside it, never inside, so that neither can ever be taken for the other.
// It is .../capplunder/simulated for the default directory and <dir>-simulated
// for any other.
func SimulatedDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("state directory %s: %w", dir, err)
	}
	parent := filepath.Dir(abs)
	switch {
	case parent == abs:
		return "", fmt.Errorf("state directory %s: a root directory cannot have one for simulated runs beside it; choose another --state-dir", abs)
	case filepath.Base(abs) == "state" && filepath.Base(parent) == "capplunder":
		return filepath.Join(parent, "simulated"), nil
	default:
		return abs + "-simulated", nil
	}
}
