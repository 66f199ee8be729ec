package plunder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const (
	mac1 = "00:50:56:a5:11:20"
	mac2 = "00:50:56:a5:b5:f1"
	mac3 = "00:50:56:aa:00:03"
	ip1  = "192.168.1.101"
	ip2  = "192.168.1.102"
)

func TestEnsureDeployment(t *testing.T) {
	want := deployment(mac1, ip1, "cp-ab1cd")
	reboot := wire.Deployment{MAC: mac1, BootConfigName: "reboot", Config: wire.HostConfig{Address: ip2, Hostname: "old"}}
	for name, tc := range map[string]struct {
		has    []wire.Deployment
		faults func(f *fake) func(*http.Request) fault
		writes []string
	}{
		"nothing there": {writes: []string{"POST /deployment"}},
		"there already": {has: []wire.Deployment{want}},
		"there with what the server fills in": {has: []wire.Deployment{{
			MAC: mac1, BootConfigName: "preseed", BootConfig: &wire.BootConfig{ConfigName: "preseed"},
			Config: wire.HostConfig{Address: ip1, Hostname: "cp-ab1cd", Gateway: "192.168.1.1", Username: "deploy"},
		}}},
		"in the reboot loop": {has: []wire.Deployment{reboot}, writes: []string{"PATCH /deployment/00-50-56-a5-11-20"}},
		"address of a machine in the reboot loop": {
			has:    []wire.Deployment{{MAC: mac2, BootConfigName: "reboot", Config: wire.HostConfig{Address: ip1}}},
			writes: []string{"POST /deployment"},
		},
		"POST dies half way": {
			faults: func(*fake) func(*http.Request) fault { return on("POST /deployment", halfDead) },
			writes: []string{"POST /deployment", "POST /deployment"},
		},
		"POST works and its answer gets lost": {
			faults: func(*fake) func(*http.Request) fault { return on("POST /deployment", actDie) },
			writes: []string{"POST /deployment"},
		},
		"lost update": {
			faults: func(*fake) func(*http.Request) fault { return on("POST /deployment", lose, lose) },
			writes: []string{"POST /deployment", "POST /deployment", "POST /deployment"},
		},
		"lost update of a PATCH": {
			has: []wire.Deployment{reboot},
			faults: func(*fake) func(*http.Request) fault {
				return on("PATCH /deployment/00-50-56-a5-11-20", lose)
			},
			writes: []string{"PATCH /deployment/00-50-56-a5-11-20", "PATCH /deployment/00-50-56-a5-11-20"},
		},
		"connection refused, then up": {
			faults: func(*fake) func(*http.Request) fault { return on("POST /deployment", down, down) },
			writes: []string{"POST /deployment", "POST /deployment", "POST /deployment"},
		},
		"read-back has to be asked twice": {
			faults: func(*fake) func(*http.Request) fault { return on("GET /deployment/00-50-56-a5-11-20", die, down) },
			writes: []string{"POST /deployment"},
		},
		"server crashes after the write and comes back empty": {
			faults: func(f *fake) func(*http.Request) fault {
				inner := on("GET /deployment/00-50-56-a5-11-20", die, down, down)
				return func(req *http.Request) fault {
					what := inner(req)
					if what == die {
						f.restart()
					}
					return what
				}
			},
			writes: []string{"POST /deployment", "POST /deployment"},
		},
		"server restarts empty between the look and the PATCH": {
			has: []wire.Deployment{reboot},
			faults: func(f *fake) func(*http.Request) fault {
				return func(req *http.Request) fault {
					if req.Method == http.MethodPatch {
						f.restart()
					}
					return serve
				}
			},
			writes: []string{"PATCH /deployment/00-50-56-a5-11-20", "POST /deployment"},
		},
		"somebody posts the same in between": {
			faults: func(f *fake) func(*http.Request) fault {
				return func(req *http.Request) fault {
					if req.Method == http.MethodPost {
						f.deployments = append(f.deployments, want)
					}
					return serve
				}
			},
			writes: []string{"POST /deployment"},
		},
	} {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, v0.5 %v", name, old), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFake()
					f.old = old
					f.boot = append(f.boot, rebootBootConfig())
					f.deployments = slices.Clone(tc.has)
					f.unleased = []wire.Lease{lease(mac1), lease(mac3)}
					if tc.faults != nil {
						f.faults = tc.faults(f)
					}
					if err := dial(t, f).EnsureDeployment(t.Context(), want); err != nil {
						t.Fatal(err)
					}
					if have, ok := f.deployment(mac1); !ok || !same(have, want) {
						t.Errorf("the server has %+v", have)
					}
					if diff := cmp.Diff(tc.writes, f.writes()); diff != "" {
						t.Errorf("writes (-want +got):\n%s", diff)
					}
				})
			})
		}
	}
}

func TestEnsureDeploymentRefuses(t *testing.T) {
	want := deployment("00-50-56-A5-11-20", ip1, "cp-ab1cd") // any spelling
	want.Config.Password = "hunter2"
	withPassword := func(d wire.Deployment) wire.Deployment {
		d.Config.Password = "correct-horse"
		return d
	}
	for name, tc := range map[string]struct {
		has  wire.Deployment
		want string
	}{
		"MAC in use with another host name": {
			withPassword(deployment(mac1, ip1, "other")),
			"deployment of 00:50:56:a5:11:20: MAC 00:50:56:a5:11:20 already has a deployment (preseed, host name other, address 192.168.1.101)",
		},
		"MAC in use with another boot configuration": {
			wire.Deployment{MAC: mac1, BootConfigName: "rhel", Config: wire.HostConfig{Address: ip1, Hostname: "cp-ab1cd"}},
			"MAC 00:50:56:a5:11:20 already has a deployment (rhel",
		},
		"upper-case twin": {
			withPassword(deployment("00:50:56:A5:11:20", ip2, "other")),
			"MAC 00:50:56:A5:11:20 already has a deployment (preseed, host name other, address 192.168.1.102)",
		},
		"address in use": {
			withPassword(deployment(mac2, ip1, "other")),
			"address 192.168.1.101 already belongs to the deployment of 00:50:56:a5:b5:f1 (preseed, host name other)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.deployments = []wire.Deployment{tc.has}
			err := dial(t, f).EnsureDeployment(t.Context(), want)
			var conflict *wire.ConflictError
			if !errors.As(err, &conflict) {
				t.Fatalf("got %v, want a conflict", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
			if conflict.MAC != mac1 || conflict.Address != ip1 {
				t.Errorf("conflict of %s %s", conflict.MAC, conflict.Address)
			}
			if everything := fmt.Sprintf("%v %+v", err, conflict.Other); strings.Contains(everything, "horse") || strings.Contains(everything, "hunter") {
				t.Errorf("shows a password: %s", everything)
			}
			if w := f.writes(); len(w) != 0 {
				t.Errorf("wrote %v", w)
			}
		})
	}

	t.Run("unknown boot configuration", func(t *testing.T) {
		f := newFake()
		f.boot = append(f.boot, wire.BootConfig{ConfigName: "kickstart"}, wire.BootConfig{ConfigName: "kickstart"})
		f.unleased = []wire.Lease{lease(mac1)}
		d := want
		d.BootConfigName = "presed"
		err := dial(t, f).EnsureDeployment(t.Context(), d)
		var unknown *wire.UnknownBootConfigError
		if !errors.As(err, &unknown) || unknown.Name != "presed" || !slices.Equal(unknown.Known, []string{"kickstart", "preseed"}) {
			t.Fatalf("got %v", err)
		}
		if w := f.writes(); len(w) != 0 {
			t.Errorf("wrote %v", w)
		}
		if len(f.unleased) != 1 {
			t.Error("the machine is lost")
		}
	})

	for name, d := range map[string]wire.Deployment{
		`"rack 7" is not a MAC address`: deployment("rack 7", ip1, "cp"),
		"no boot configuration":         {MAC: mac1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			if err := dial(t, f).EnsureDeployment(t.Context(), d); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
			if len(f.calls) != 0 {
				t.Errorf("called %v", f.calls)
			}
		})
	}

	t.Run("the server refuses", func(t *testing.T) {
		f := newFake()
		// The configuration disappears between the look and the POST.
		f.faults = func(req *http.Request) fault {
			if req.Method == http.MethodPost {
				f.boot = nil
			}
			return serve
		}
		err := dial(t, f).EnsureDeployment(t.Context(), want)
		var refused *wire.RefusedError
		if !errors.As(err, &refused) || refused.Op != "POST /deployment" || !strings.Contains(refused.Message, "unknown config") {
			t.Errorf("got %v", err)
		}
		if n := f.made("POST /deployment"); n != 1 {
			t.Errorf("%d posts, want 1: each one loses a machine", n)
		}
	})
}

func TestEnsureDeploymentGivesUp(t *testing.T) {
	want := deployment(mac1, ip1, "cp")
	want.Config.Password = "hunter2"
	always := func(call string, what fault) func(*http.Request) fault {
		return func(req *http.Request) fault {
			if req.Method+" "+req.URL.Path == call {
				return what
			}
			return serve
		}
	}
	for name, tc := range map[string]struct {
		faults func(*http.Request) fault
		is     error
		says   []string
		posts  int
	}{
		"every update is lost": {
			always("POST /deployment", lose), nil,
			[]string{"deployment of 00:50:56:a5:11:20: still not there after 5 writes", "somebody else"}, maxWrites,
		},
		"every POST dies": {
			always("POST /deployment", halfDead), wire.ErrNoAnswer,
			[]string{"still not there after 5 writes", "POST /deployment", "https://plunder.example:60443", "unexpected EOF"}, maxWrites,
		},
		"server goes down before the POST": {
			always("POST /deployment", down), wire.ErrUnreachable,
			[]string{"https://plunder.example:60443", "POST /deployment", "connection refused", "tries in"}, -1,
		},
		"server goes down before the read-back": {
			always("GET /deployment/00-50-56-a5-11-20", down), wire.ErrUnreachable,
			[]string{"written, but it can't be read back", "GET /deployment/00-50-56-a5-11-20", "connection refused"}, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.faults = tc.faults
				c := dial(t, f)
				started := time.Now()
				err := c.EnsureDeployment(t.Context(), want)
				if err == nil || tc.is != nil && !errors.Is(err, tc.is) {
					t.Fatalf("got %v, want %v", err, tc.is)
				}
				for _, s := range tc.says {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("%q is not in: %v", s, err)
					}
				}
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("shows the password: %v", err)
				}
				if took := time.Since(started); took > 45*time.Second {
					t.Errorf("took %s", took)
				}
				if n := f.made("POST /deployment"); tc.posts >= 0 && n != tc.posts {
					t.Errorf("%d posts, want %d", n, tc.posts)
				}
				// Called again on a server that works, it finishes.
				f.faults = nil
				if err := c.EnsureDeployment(t.Context(), want); err != nil {
					t.Errorf("again: %v", err)
				}
			})
		})
	}
}

// The measured fault: of 8 simultaneous writes some are lost and the server may
// die. The fake loses a write whenever another one is under way.
func TestWritesAreSerialised(t *testing.T) {
	f := newFake()
	var mu sync.Mutex
	writing, collisions := 0, 0
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet {
			f.ServeHTTP(w, req)
			return
		}
		mu.Lock()
		writing++
		alone := writing == 1
		if !alone {
			collisions++
		}
		mu.Unlock()
		time.Sleep(time.Millisecond) // virtual: wide enough for every other goroutine to come in
		if alone {
			f.ServeHTTP(w, req)
		} else {
			f.ok(w)
		}
		mu.Lock()
		writing--
		mu.Unlock()
	})
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{Address: "plunder.example"}, WithTransport(handlerTransport{handler}))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 10 {
					n := i*10 + j
					d := deployment(fmt.Sprintf("00:50:56:00:00:%02x", n), fmt.Sprintf("10.0.0.%d", n+1), fmt.Sprintf("m%d", n))
					if err := c.EnsureDeployment(t.Context(), d); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
	if collisions != 0 {
		t.Errorf("%d writes at the same time as another", collisions)
	}
	if len(f.deployments) != 80 || f.made("POST /deployment") != 80 {
		t.Errorf("%d deployments after %d posts, want 80 after 80", len(f.deployments), f.made("POST /deployment"))
	}
	for key, n := range f.lookups {
		if n != 1 {
			t.Errorf("%s was looked up %d times", key, n)
		}
	}
}

// handlerTransport serves requests by a handler, without a network.
type handlerTransport struct{ h http.Handler }

func (t handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	t.h.ServeHTTP(rec, req)
	return rec.Result(), nil
}

func TestReleaseDeployment(t *testing.T) {
	active := deployment(mac1, ip1, "cp")
	active.Config.Username, active.Config.SSHKeyPath = "deploy", "/keys/id.pub"
	released := wire.Deployment{MAC: mac1, BootConfigName: "reboot", Config: active.Config}
	for name, tc := range map[string]struct {
		has     []wire.Deployment
		boot    []wire.BootConfig
		faults  func(f *fake) func(*http.Request) fault
		writes  []string
		sshUser string
	}{
		"in use": {
			has:     []wire.Deployment{active},
			writes:  []string{"POST /config/boot/reboot", "PATCH /deployment/00-50-56-a5-11-20"},
			sshUser: "deploy",
		},
		"boot configuration there": {
			has:     []wire.Deployment{active},
			boot:    []wire.BootConfig{rebootBootConfig()},
			writes:  []string{"PATCH /deployment/00-50-56-a5-11-20"},
			sshUser: "deploy",
		},
		"released already": {has: []wire.Deployment{released}, boot: []wire.BootConfig{rebootBootConfig()}, sshUser: "deploy"},
		"released with another address": {
			has:    []wire.Deployment{{MAC: mac1, BootConfigName: "reboot", Config: wire.HostConfig{Address: ip2}}},
			boot:   []wire.BootConfig{rebootBootConfig()},
			writes: []string{"PATCH /deployment/00-50-56-a5-11-20"},
		},
		"a server that forgot everything": {writes: []string{"POST /config/boot/reboot", "POST /deployment"}},
		"POST of the boot configuration dies": {
			has: []wire.Deployment{active},
			faults: func(*fake) func(*http.Request) fault {
				return on("POST /config/boot/reboot", die)
			},
			writes:  []string{"POST /config/boot/reboot", "POST /config/boot/reboot", "PATCH /deployment/00-50-56-a5-11-20"},
			sshUser: "deploy",
		},
		"answer for the boot configuration gets lost": {
			has: []wire.Deployment{active},
			faults: func(*fake) func(*http.Request) fault {
				return on("POST /config/boot/reboot", actDie)
			},
			writes:  []string{"POST /config/boot/reboot", "PATCH /deployment/00-50-56-a5-11-20"},
			sshUser: "deploy",
		},
		"server restarts empty at the PATCH": {
			has:  []wire.Deployment{active},
			boot: []wire.BootConfig{rebootBootConfig()},
			faults: func(f *fake) func(*http.Request) fault {
				return func(req *http.Request) fault {
					if req.Method == http.MethodPatch {
						f.restart()
						return die
					}
					return serve
				}
			},
			writes: []string{"PATCH /deployment/00-50-56-a5-11-20", "POST /config/boot/reboot", "POST /deployment"},
		},
	} {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, v0.5 %v", name, old), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFake()
					f.old = old
					f.boot = append(f.boot, tc.boot...)
					f.deployments = slices.Clone(tc.has)
					if tc.faults != nil {
						f.faults = tc.faults(f)
					}
					if err := dial(t, f).ReleaseDeployment(t.Context(), mac1, ip1, "cp"); err != nil {
						t.Fatal(err)
					}
					have, _ := f.deployment(mac1)
					if !same(have, released) || have.Config.Username != tc.sshUser {
						t.Errorf("the server has %+v", have)
					}
					if diff := cmp.Diff(tc.writes, f.writes()); diff != "" {
						t.Errorf("writes (-want +got):\n%s", diff)
					}
					if n := strings.Count(fmt.Sprint(f.boot), "{reboot "); n != 1 {
						t.Errorf("%d boot configurations called reboot: %v", n, f.boot)
					}
				})
			})
		}
	}
	t.Run("somebody else's", func(t *testing.T) {
		for _, other := range []wire.Deployment{deployment(mac1, ip2, "cp"), deployment(mac1, ip1, "other")} {
			f := newFake()
			f.deployments = []wire.Deployment{other}
			err := dial(t, f).ReleaseDeployment(t.Context(), mac1, ip1, "cp")
			var conflict *wire.ConflictError
			if !errors.As(err, &conflict) || len(f.writes()) != 0 {
				t.Errorf("got %v, wrote %v", err, f.writes())
			}
		}
	})
}

func TestRemoveDeployment(t *testing.T) {
	released := wire.Deployment{MAC: mac1, BootConfigName: "reboot", Config: wire.HostConfig{Address: ip1, Hostname: "cp"}}
	other := deployment(mac2, ip2, "w")
	const del = "DELETE /deployment/mac/00-50-56-a5-11-20"
	for name, tc := range map[string]struct {
		has    []wire.Deployment
		faults func(*http.Request) fault
		writes []string
		left   []string
	}{
		"one of two":   {has: []wire.Deployment{released, other}, writes: []string{del}, left: []string{mac2}},
		"none there":   {has: []wire.Deployment{other}, left: []string{mac2}},
		"empty server": {},
		"the last one": {
			has:    []wire.Deployment{released},
			writes: []string{"POST /config/boot/reboot", "POST /deployment", del},
			left:   []string{PlaceholderMAC},
		},
		"lost":            {has: []wire.Deployment{released, other}, faults: on(del, lose), writes: []string{del, del}, left: []string{mac2}},
		"no answer":       {has: []wire.Deployment{released, other}, faults: on(del, die), writes: []string{del, del}, left: []string{mac2}},
		"answer got lost": {has: []wire.Deployment{released, other}, faults: on(del, actDie), writes: []string{del}, left: []string{mac2}},
		"placeholder's POST dies": {
			has:    []wire.Deployment{released},
			faults: on("POST /deployment", die),
			writes: []string{"POST /config/boot/reboot", "POST /deployment", "POST /deployment", del},
			left:   []string{PlaceholderMAC},
		},
	} {
		for _, old := range []bool{false, true} {
			if old && tc.faults != nil {
				continue // the script is used up
			}
			t.Run(fmt.Sprintf("%s, v0.5 %v", name, old), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFake()
					f.old = old
					f.deployments, f.faults = slices.Clone(tc.has), tc.faults
					c := dial(t, f)
					if err := c.RemoveDeployment(t.Context(), strings.ToUpper(mac1)); err != nil {
						t.Fatal(err)
					}
					var left []string
					for _, d := range f.deployments {
						left = append(left, d.MAC)
					}
					if diff := cmp.Diff(tc.left, left); diff != "" {
						t.Errorf("left (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff(tc.writes, f.writes()); diff != "" {
						t.Errorf("writes (-want +got):\n%s", diff)
					}
					for _, d := range f.deployments {
						if d.MAC == PlaceholderMAC && (d.BootConfigName != "reboot" || d.Config.Address != "0.0.0.0") {
							t.Errorf("placeholder %+v", d)
						}
					}
				})
			})
		}
	}
}

func TestEnsurePlaceholder(t *testing.T) {
	f := newFake()
	c := dial(t, f)
	for range 2 {
		if err := c.EnsurePlaceholder(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"POST /config/boot/reboot", "POST /deployment"}, f.writes()); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

// Whoever waits for somebody else's write can be stopped.
func TestWriteLockHonoursContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.faults = on("POST /deployment", hang)
		c := dial(t, f)
		first, stopFirst := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.EnsureDeployment(first, deployment(mac1, ip1, "cp")) }()
		synctest.Wait()

		second, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.EnsureDeployment(second, deployment(mac2, ip2, "w"))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), mac2) || !strings.Contains(err.Error(), "other deployments") {
			t.Errorf("got %v", err)
		}

		stopFirst()
		err = <-done
		if !errors.Is(err, context.Canceled) || !errors.Is(err, wire.ErrNoAnswer) || !strings.Contains(err.Error(), "POST /deployment") {
			t.Errorf("got %v", err)
		}
		f.faults = nil
		if err := c.EnsureDeployment(t.Context(), deployment(mac2, ip2, "w")); err != nil {
			t.Errorf("the lock was not given back: %v", err)
		}
	})
}

func TestEnsureBootConfig(t *testing.T) {
	b := wire.BootConfig{ConfigName: "rhel", ConfigType: "kickstart", KernelPath: "vmlinuz", InitrdPath: "initrd.img"}
	const post = "POST /config/boot/rhel"
	for name, tc := range map[string]struct {
		there  bool
		faults func(f *fake) func(*http.Request) fault
		posts  int
		says   string
	}{
		"new":             {posts: 1},
		"there":           {there: true},
		"dies":            {faults: func(*fake) func(*http.Request) fault { return on(post, die) }, posts: 2},
		"answer got lost": {faults: func(*fake) func(*http.Request) fault { return on(post, actDie) }, posts: 1},
		"somebody else makes it in between": {faults: func(f *fake) func(*http.Request) fault {
			return func(req *http.Request) fault {
				if req.Method == http.MethodPost {
					f.boot = append(f.boot, b)
				}
				return serve
			}
		}, posts: 1},
		"not plunder": {faults: func(*fake) func(*http.Request) fault { return on(post, garbage) }, posts: 1, says: `boot configuration "rhel": plunder server https://plunder.example:60443: POST /config/boot/rhel: that is no answer`},
		"goes down":   {faults: func(*fake) func(*http.Request) fault { return downAfterWrite() }, posts: 1, says: "written, but it can't be read back"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				if tc.there {
					f.boot = append(f.boot, b)
				}
				if tc.faults != nil {
					f.faults = tc.faults(f)
				}
				err := dial(t, f).EnsureBootConfig(t.Context(), b)
				if n := f.made(post); n != tc.posts {
					t.Errorf("%d posts, want %d", n, tc.posts)
				}
				if tc.says != "" {
					says(t, err, tc.says)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := (wire.ServerConfig{BootConfigs: f.boot}).BootConfig("rhel"); !ok {
					t.Errorf("the server has %v", f.boot)
				}
			})
		})
	}
}

// downAfterWrite is a server that goes down with its first write and stays down.
func downAfterWrite() func(*http.Request) fault {
	gone := false
	return func(req *http.Request) fault {
		switch {
		case gone:
			return down
		case req.Method != http.MethodGet:
			gone = true
			return actDie
		}
		return serve
	}
}

// Every write says so when it can't be proved, so that the caller can wait for
// the server and call again.
func TestServerGoesDownAfterWrite(t *testing.T) {
	for name, tc := range map[string]struct {
		write func(ctx context.Context, c *Client) error
		says  string
	}{
		"ensure": {func(ctx context.Context, c *Client) error {
			return c.EnsureDeployment(ctx, deployment(mac2, ip2, "w"))
		}, "deployment of " + mac2 + ": written, but it can't be read back"},
		"release": {func(ctx context.Context, c *Client) error {
			return c.ReleaseDeployment(ctx, mac1, ip1, "cp")
		}, "deployment of " + mac1 + ": written, but it can't be read back"},
		"remove": {func(ctx context.Context, c *Client) error {
			return c.RemoveDeployment(ctx, mac1)
		}, "remove deployment of " + mac1 + ": deleted, but that can't be read back"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.boot = append(f.boot, rebootBootConfig())
				f.deployments = []wire.Deployment{deployment(mac1, ip1, "cp"), deployment(mac3, "192.168.1.103", "x")}
				f.faults = downAfterWrite()
				c := dial(t, f)
				err := tc.write(t.Context(), c)
				if !errors.Is(err, wire.ErrUnreachable) {
					t.Errorf("got %v, want ErrUnreachable", err)
				}
				says(t, err, tc.says, "connection refused")

				f.faults, f.calls = nil, nil
				if err := tc.write(t.Context(), c); err != nil {
					t.Errorf("again: %v", err)
				}
				if w := f.writes(); len(w) != 0 {
					t.Errorf("it had worked, and was done again: %v", w)
				}
			})
		})
	}
}

func TestStoppedBetweenWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.faults = on("POST /deployment", lose, lose, lose)
		ctx, cancel := context.WithTimeout(t.Context(), firstPause*3/2)
		defer cancel()
		err := dial(t, f).EnsureDeployment(ctx, deployment(mac1, ip1, "cp"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		says(t, err, "deployment of "+mac1+": stopped before it was there: context deadline exceeded (last: answered with success, and not there)")
		if n := f.made("POST /deployment"); n != 2 {
			t.Errorf("%d posts, want 2", n)
		}
	})
}

func TestBadMACs(t *testing.T) {
	f := newFake()
	c := dial(t, f)
	for name, call := range map[string]func() error{
		"ensure":  func() error { return c.EnsureDeployment(t.Context(), deployment("../config", ip1, "cp")) },
		"release": func() error { return c.ReleaseDeployment(t.Context(), "../config", ip1, "cp") },
		"remove":  func() error { return c.RemoveDeployment(t.Context(), "../config") },
		"get":     func() error { _, err := c.Deployment(t.Context(), "../config"); return err },
	} {
		t.Run(name, func(t *testing.T) { says(t, call(), `"../config" is not a MAC address`) })
	}
	if len(f.calls)+len(f.lookups) != 0 {
		t.Errorf("called %v", f.calls)
	}
}
