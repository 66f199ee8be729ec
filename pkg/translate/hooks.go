package translate

import (
	"fmt"
	"time"
)

// When a hook runs; part of names on the host and of actions.
const (
	hookBefore = "before"
	hookAfter  = "after"
)

// hookFile is the file of a hook for a bundle, or nothing. It may hold secrets, and is
// removed when it has run.
func hookFile(when, text string) []file {
	if text == "" {
		return nil
	}
	return []file{{"/run/capplunder/hook-" + when, 0o700, text}}
}

// hook runs a hook that a bundle has brought, unless it has already run well on this
// host. It gets the proxies. The descriptor of the lock is closed for it: what it
// leaves running must not keep the lock.
func (b *mapBuilder) hook(when string) {
	b.bash("hook."+when, 31*time.Minute, fmt.Sprintf(`h=$R/hook-%[1]s; l=$L/hook-%[1]s.log; trap 'rm -f $h' EXIT; if [ -e $E/hook-%[1]s.done ]; then echo 'capplunder-hook %[1]s already'; exit 0; fi
cd /; s=0; px timeout 1800 sh $h >$l 2>&1 9>&- || s=$?; tail -n 40 $l | mask
[ $s = 0 ] || { echo "capplunder-error the user's script hooks.%[1]s ended with status $s"; exit 1; }; touch $E/hook-%[1]s.done; echo 'capplunder-hook %[1]s ok'`, when))
}
