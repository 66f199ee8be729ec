package simulator

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

func TestParseFault(t *testing.T) {
	for text, want := range map[string]Fault{
		"post=die":                                                {Step: "post", Kind: "die"},
		"worker/post=drop,times=1":                                {Machine: "worker", Step: "post", Kind: "drop", Times: 1},
		"00:50:56:a5:11:20/install=hang":                          {Machine: macA, Step: "install", Kind: "hang"},
		"192.168.1.123/ssh=stranger":                              {Machine: ipA, Step: "ssh", Kind: "stranger"},
		"#1/action:kubeadm.init=die,after=3s":                     {Machine: "#1", Step: "action:kubeadm.init", Kind: "die", After: 3 * time.Second},
		"action:a/b=fail":                                         {Step: "action:a/b", Kind: "fail"},
		"cp/run:apt-get install kubelet=1.34=fail,skip=2,times=1": {Machine: "cp", Step: "run:apt-get install kubelet=1.34", Kind: "fail", Skip: 2, Times: 1},
		"run:dd of=/dev/sda=die":                                  {Step: "run:dd of=/dev/sda", Kind: "die"},
		"net:pkgs.k8s.io=lose":                                    {Step: "net:pkgs.k8s.io", Kind: "lose"},
		"phase:init wait-control-plane=die,times=1":               {Step: "phase:init wait-control-plane", Kind: "die", Times: 1},
		"worker/endpoint=lose,times=3":                            {Machine: "worker", Step: "endpoint", Kind: "lose", Times: 3},
		"api=fail":                                                {Step: "api", Kind: "fail"},
		"lock=hold,times=1,after=2m0s":                            {Step: "lock", Kind: "hold", Times: 1, After: 2 * time.Minute},
	} {
		got, err := ParseFault(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%s became %s", text, got)
		}
	}
	for text, want := range map[string]string{
		"":                     "there is no =",
		"worker":               "there is no =",
		"worker/dance=die":     `no step "dance"`,
		"post=stranger":        "it has die, drop, lose, hang, fail, crash",
		"post=die,times=0":     "want 1 or more",
		"post=die,skip=0":      "want 1 or more",
		"run:=die":             `no step "run:"`,
		"net:x=hold":           "it has refuse, lose, fail, hang",
		"post=die,times=often": "times",
		"post=die,after=now":   "after",
		"post=die,after=-1s":   "negative",
		"post=die,when=1":      `"when"`,
	} {
		if got, err := ParseFault(text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "want [MACHINE/]STEP=KIND") {
			t.Errorf("%q: got %+v, %v, want an error with %q", text, got, err, want)
		}
	}
	var s Server
	if err := s.Inject(Fault{Step: "post", Kind: "dance"}); err == nil {
		t.Error("Inject took nonsense")
	}
}

func faults(t *testing.T, texts ...string) []Fault {
	t.Helper()
	var all []Fault
	for _, text := range texts {
		f, err := ParseFault(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

func (a api) deployed(mac string) bool {
	a.t.Helper()
	_, ok := get[wire.Deployments](a, "/deployments").ByMAC(mac)
	return ok
}

func TestRequestFaults(t *testing.T) {
	d := deployment(macA, "preseed", ipA, "worker-ab1cd")
	for text, check := range map[string]func(api, wire.Envelope, error){
		"worker/post=die,times=1": func(a api, _ wire.Envelope, err error) {
			t := a.t
			if !errors.Is(err, io.EOF) || a.deployed(macA) {
				t.Errorf("%v, deployed %v", err, a.deployed(macA))
			}
		},
		macA + "/post=drop,times=1": func(a api, _ wire.Envelope, err error) {
			t := a.t
			if !errors.Is(err, io.EOF) || !a.deployed(macA) {
				t.Errorf("%v, deployed %v", err, a.deployed(macA))
			}
		},
		ipA + "/post=lose,times=1": func(a api, env wire.Envelope, err error) {
			t := a.t
			if err != nil || env.Error != "" || a.deployed(macA) {
				t.Errorf("%v %+v, deployed %v", err, env, a.deployed(macA))
			}
		},
		"#0/post=fail,times=1": func(a api, env wire.Envelope, err error) {
			t := a.t
			if err != nil || env.Error == "" || a.deployed(macA) {
				t.Errorf("%v %+v, deployed %v", err, env, a.deployed(macA))
			}
		},
		"post=hang,times=1": func(a api, _ wire.Envelope, err error) {
			t := a.t
			if !errors.Is(err, context.DeadlineExceeded) || a.deployed(macA) {
				t.Errorf("%v, deployed %v", err, a.deployed(macA))
			}
		},
		"post=crash,times=1": func(a api, _ wire.Envelope, err error) {
			t := a.t
			if !errors.Is(err, io.EOF) {
				t.Errorf("%v", err)
			}
			if _, err := a.try(http.MethodGet, "/config", nil); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("while it is down: %v", err)
			}
			time.Sleep(5 * time.Second)
			if a.deployed(macA) {
				t.Error("the deployment outlived the crash")
			}
		},
		"other/post=die": func(a api, env wire.Envelope, err error) {
			t := a.t
			if err != nil || env.Error != "" || !a.deployed(macA) {
				t.Errorf("another machine's fault struck: %v %+v", err, env)
			}
		},
	} {
		t.Run(text, func(t *testing.T) {
			bubble(t, slow(Config{MACs: []string{macA}, Faults: faults(t, text)}), func(a api) {
				t := a.t
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				env, err := a.send(ctx, http.MethodPost, "/deployment", []byte(`{"mac":"`+macA+`","bootConfigName":"preseed","config":{"address":"`+ipA+`","hostname":"worker-ab1cd"}}`))
				check(a, env, err)
				if !a.deployed(macA) { // the fault is over
					a.post(d)
				}
				a.await(macA, "up", 10*time.Minute)
			})
		})
	}
}

func TestOtherRequestFaults(t *testing.T) {
	upRack(t, Config{Faults: faults(t, "worker/patch=die,times=1", "worker/delete=lose,times=1", "worker/parlay=fail,times=1", "worker/log=fail,times=1")},
		func(a api) {
			t := a.t
			released := deployment(macB, "preseed", ipB, "worker-x2y3z")
			if _, err := a.try(http.MethodPatch, "/deployment/"+dashed(macB), released); !errors.Is(err, io.EOF) {
				t.Errorf("patch: %v", err)
			}
			a.patch(released)
			a.do(http.MethodDelete, "/deployment/mac/"+dashed(macB), nil)
			if !a.deployed(macB) {
				t.Error("a lost DELETE was done")
			}
			env, err := a.try(http.MethodPost, "/parlay", wire.Map{Deployments: []wire.MapDeployment{{Hosts: []string{ipB}}}})
			if err != nil || env.Error != "simulated fault" {
				t.Errorf("parlay: %v %+v", err, env)
			}
			a.parlay(ipB, command("x", "true"))
			time.Sleep(time.Second)
			if env, err := a.try(http.MethodGet, a.logPath(ipB), nil); err != nil || env.Error != "simulated fault" {
				t.Errorf("log: %v %+v", err, env)
			}
			if l := a.log(ipB); l.State != "Completed" {
				t.Errorf("%+v", l)
			}
		})
}

func TestInstallFaults(t *testing.T) {
	for text, want := range map[string]string{
		"install=die,after=1m": "dead",
		"install=hang":         "stuck",
		"install=fail,times=1": "up",
	} {
		t.Run(text, func(t *testing.T) {
			bubble(t, slow(Config{MACs: []string{macA}, Faults: faults(t, text)}), func(a api) {
				t := a.t
				a.post(deployment(macA, "preseed", ipA, "one"))
				time.Sleep(8 * time.Minute)
				if want == "up" && a.phase(macA) == "up" {
					t.Error("the installation did not fail")
				}
				time.Sleep(time.Hour)
				if got := a.phase(macA); got != want {
					t.Errorf("the machine is %s, want %s", got, want)
				}
			})
		})
	}
}

func TestSSHFaults(t *testing.T) {
	for text, want := range map[string]string{
		"worker/ssh=refuse,times=1": "dial tcp 192.168.1.124:22: connect: connection refused",
		"worker/ssh=lose,times=1":   "dial tcp 192.168.1.124:22: i/o timeout",
		"worker/ssh=hang,times=1":   "Command Timed out",
		"worker/ssh=fail,times=1":   "ssh: handshake failed: ssh: unable to authenticate, attempted methods [none publickey], no supported methods remain",
	} {
		t.Run(text, func(t *testing.T) {
			upRack(t, Config{Faults: faults(t, text)}, func(a api) {
				t := a.t
				if l := a.run(ipA, command("x", "true")); l.State != "Completed" {
					t.Errorf("the other machine: %+v", l)
				}
				if l := a.run(ipB, command("x", "true")); l.State != "Failed" || l.Entries[0].Error != want {
					t.Errorf("%+v, want %s", l, want)
				}
				if l := a.run(ipB, command("x", "true")); l.State != "Completed" {
					t.Errorf("afterwards: %+v", l)
				}
			})
		})
	}
}

func TestStranger(t *testing.T) {
	bubble(t, slow(Config{MACs: []string{macA}, Faults: faults(t, "one/ssh=stranger")}), func(a api) {
		t := a.t
		a.post(deployment(macA, "preseed", ipA, "one-abcde"))
		const who = "hostname; cat /sys/class/net/eth0/address"
		got := a.output(ipA, who)
		if strings.Contains(got, macA) || !strings.HasPrefix(got, "stranger\n") {
			t.Errorf("before the machine is there: %q", got)
		}
		a.await(macA, "up", 10*time.Minute)
		if now := a.output(ipA, who); now != got {
			t.Errorf("when it is there: %q", now)
		}
	})
}

func TestActionFaults(t *testing.T) {
	for text, tc := range map[string]struct{ err, phase string }{
		"worker/action:kube=fail,times=1":          {"Process exited with status 1", "up"},
		"worker/action:kube=hang,times=1":          {"Command Timed out", "up"},
		"worker/action:kube=die,times=1,after=5s":  {"Command Timed out", "dead"},
		"worker/action:kube=reset,times=1":         {"Command Timed out", "up"},
		"worker/action:kube=die,times=1,after=20s": {"", "up"}, // it ended before that
	} {
		t.Run(text, func(t *testing.T) {
			upRack(t, Config{Faults: faults(t, text)}, func(a api) {
				t := a.t
				if l := a.run(ipA, command("kubeadm", "true")); l.State != "Completed" {
					t.Errorf("the other machine: %+v", l)
				}
				l := a.run(ipB, command("other", "true"), command("kubeadm", "sleep 10"))
				if len(l.Entries) != 2 || l.Entries[1].Error != tc.err {
					t.Errorf("%+v, want %q", l, tc.err)
				}
				time.Sleep(time.Minute)
				if got := a.phase(macB); got != tc.phase {
					t.Errorf("the machine is %s, want %s", got, tc.phase)
				}
			})
		})
	}
	upRack(t, Config{CrashDown: time.Minute, Faults: faults(t, "action:kube=crash,times=1,after=5s")}, func(a api) {
		t := a.t
		a.parlay(ipA, command("kubeadm", "sleep 10"))
		time.Sleep(6 * time.Second)
		if _, err := a.try(http.MethodGet, "/config", nil); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after a crash: %v", err)
		}
	})
}

func TestCrash(t *testing.T) {
	upRack(t, Config{MACs: []string{macA, macB, "00:50:56:00:00:03"}, FirmwareRetry: 5 * time.Minute}, func(a api) {
		t := a.t
		a.run(ipA, command("x", "true"))
		a.parlay(ipB, command("long", "sleep 50; touch /root/done"))
		time.Sleep(5 * time.Second)

		var inFlight error
		var wg sync.WaitGroup
		a.s.mu.Lock()
		a.s.cfg.POSTCost = time.Minute
		a.s.mu.Unlock()
		wg.Go(func() {
			_, inFlight = a.try(http.MethodPost, "/parlay", wire.Map{Deployments: []wire.MapDeployment{{Hosts: []string{ipA}}}})
		})
		time.Sleep(time.Second)
		a.s.Crash(time.Minute)
		wg.Wait()
		if !errors.Is(inFlight, io.EOF) {
			t.Errorf("a request in flight got %v", inFlight)
		}
		if _, err := a.try(http.MethodGet, "/deployments", nil); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("while it is down: %v", err)
		}
		down := time.Now()
		time.Sleep(time.Minute)

		if all := get[wire.Deployments](a, "/deployments"); all.Deployments != nil || all.GlobalConfig.Username == "" {
			t.Errorf("after the crash: %+v", all)
		}
		if env, _ := a.try(http.MethodGet, a.logPath(ipA), nil); env.Error != "JSON Logging hasn't been enabled" {
			t.Errorf("logs after the crash: %+v", env)
		}
		if env, _ := a.try(http.MethodPost, "/parlay", wire.Map{}); env.Error != "No deployment configurations found" {
			t.Errorf("parlay after the crash: %+v", env)
		}
		if l := a.unleased(); l != nil {
			t.Errorf("machines that nobody saw: %v", l)
		}
		time.Sleep(5 * time.Minute)
		if l := a.unleased(); len(l) != 1 || !l[0].Time.After(down.Add(time.Minute)) {
			t.Errorf("machines after some time: %v", l)
		}

		a.s.mu.Lock()
		a.s.cfg.POSTCost = 0
		a.s.mu.Unlock()
		a.post(deployment(macB, "preseed", ipB, "worker-x2y3z"))
		if got := a.output(ipB, "hostname; ls /root/done 2>/dev/null; true"); got != "worker-x2y3z" {
			t.Errorf("the machine lives on and its job does not, but: %q", got)
		}
	})
}

func TestOverlappingWrites(t *testing.T) {
	macs := []string{"00:50:56:00:00:01", "00:50:56:00:00:02", "00:50:56:00:00:03"}
	write := func(a api, concurrently bool) {
		var wg sync.WaitGroup
		for i, mac := range macs {
			one := func() {
				_, _ = a.try(http.MethodPost, "/deployment", deployment(mac, "preseed", "10.0.0.1"+string(rune('0'+i)), "x"))
			}
			if concurrently {
				wg.Go(one)
			} else {
				one()
			}
		}
		wg.Wait()
	}
	bubble(t, Config{Machines: -1, RaceWindow: time.Millisecond}, func(a api) {
		t := a.t
		write(a, true)
		if n := a.s.Stats().Deployments; n != 1 {
			t.Errorf("of three writes at once %d are there, want 1", n)
		}
	})
	bubble(t, Config{Machines: -1, RaceWindow: time.Millisecond}, func(a api) {
		t := a.t
		write(a, false)
		if n := a.s.Stats().Deployments; n != 3 {
			t.Errorf("of three writes one after the other %d are there, want 3", n)
		}
	})
	bubble(t, Config{Machines: -1, RaceWindow: time.Millisecond, RaceCrash: 2}, func(a api) {
		t := a.t
		write(a, true)
		if _, err := a.try(http.MethodGet, "/config", nil); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after two overlaps: %v", err)
		}
	})
}

func TestCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{MACs: []string{macA, macB}})
		defer s.Close()
		a := api{t, s}
		var seen []string
		s.OnRequest(func(c Call) {
			if c.Answered {
				t.Error("answered before it was handled")
			}
			seen = append(seen, "> "+c.Function)
		})
		s.OnResponse(func(c Call) {
			s.Stats() // hooks may use the server
			if c.Answered {
				seen = append(seen, "< "+c.Error)
			} else {
				seen = append(seen, "< closed")
			}
		})
		get[[]wire.Lease](a, "/dhcp/unleased")
		a.post(deployment(macA, "preseed", ipA, "one")) // dies half way, and again
		want := []string{"> GET /dhcp/{id}", "< ", "> POST /deployment", "< closed", "> POST /deployment", "< "}
		if strings.Join(seen, "|") != strings.Join(want, "|") {
			t.Errorf("got %q", seen)
		}
		if n := s.Count("POST /deployment"); n != 2 {
			t.Errorf("counted %d", n)
		}
		calls := s.Calls()
		if len(calls) != 3 || calls[2].Seq != 3 || !strings.Contains(string(calls[2].Body), macA) || calls[2].Path != "/deployment" || calls[2].Status != 200 {
			t.Errorf("%+v", calls)
		}
		if m := s.Mutations(); len(m) != 2 {
			t.Errorf("%+v", m)
		}
		s.ForgetCalls()
		if s.Count("POST /deployment") != 0 || len(s.Calls()) != 0 {
			t.Error("not forgotten")
		}
		for range 2*maxCalls + 10 {
			s.calls.arrived(&Call{Function: "GET /x", Body: make([]byte, 1<<10)})
		}
		calls = s.Calls()
		if n := len(calls); n != maxCalls+10 || s.Count("GET /x") != 2*maxCalls+10 {
			t.Errorf("%d calls kept, %d counted", n, s.Count("GET /x"))
		}
		if calls[0].Body != nil || calls[len(calls)-1].Body == nil || s.calls.bodies > maxBodies {
			t.Errorf("%d bytes of bodies kept", s.calls.bodies)
		}
	})
}
