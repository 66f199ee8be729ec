package apply_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator"
)

// shared is a store that others use as well, as one in Kubernetes: it can stop
// answering, give a MAC to somebody else, begin deletions, and lose its lock. It
// counts what is asked of it.
type shared struct {
	apply.Store

	mu        sync.Mutex
	down      bool
	writes    []string // that it was asked for while it answered
	taken     map[string]capi.Key
	condemned []capi.Key
	lost      context.CancelCauseFunc // ends the lock
	servers   int                     // times that the lock of the server was taken
	holders   int                     // of the lock of the server, now
	overlap   bool
	occupied  int // how many attempts at that lock somebody else lets wait until they give up
}

func (s *shared) stop(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// ask is one request; what is "" for one that only reads.
func (s *shared) ask(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return fmt.Errorf("connection refused: %w", capi.ErrUnavailable)
	}
	if what != "" {
		s.writes = append(s.writes, what)
	}
	return nil
}

func (s *shared) Lock(ctx context.Context, req capi.LockRequest) (context.Context, func() error, error) {
	if err := s.ask("lock"); err != nil {
		return nil, nil, err
	}
	held, unlock, err := s.Store.Lock(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	held, s.lost = context.WithCancelCause(held)
	return held, unlock, nil
}

func (s *shared) LockServer(ctx context.Context, url string) (func() error, error) {
	if err := s.ask("lock server"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.occupied > 0 {
		s.occupied--
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return nil, errors.New("ann writes deployments")
	}
	s.servers++
	s.holders++
	s.overlap = s.overlap || s.holders > 1
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.holders--
		return nil
	}, nil
}

func (s *shared) Sync(ctx context.Context, set *capi.Set) error {
	if err := s.ask("sync"); err != nil {
		return err
	}
	return s.Store.Sync(ctx, set)
}

func (s *shared) Claims(ctx context.Context) (map[string]capi.Key, error) {
	if err := s.ask(""); err != nil {
		return nil, err
	}
	return s.Store.Claims(ctx)
}

func (s *shared) SaveRecord(ctx context.Context, r capi.Record) error {
	if err := s.ask("record " + r.Name + " " + r.Step); err != nil {
		return err
	}
	s.mu.Lock()
	holder, ok := s.taken[r.MAC]
	s.mu.Unlock()
	if ok && holder != r.Key {
		return fmt.Errorf("%s is held by Machine %s: %w", r.MAC, holder, capi.ErrMACTaken)
	}
	return s.Store.SaveRecord(ctx, r)
}

func (s *shared) SaveClusterRecord(ctx context.Context, r capi.ClusterRecord) error {
	if err := s.ask("cluster"); err != nil {
		return err
	}
	return s.Store.SaveClusterRecord(ctx, r)
}

func (s *shared) Condemn(ctx context.Context, key capi.Key) (bool, string, error) {
	if err := s.ask("condemn"); err != nil {
		return false, "", err
	}
	return s.Store.Condemn(ctx, key)
}

func (s *shared) Condemned(ctx context.Context, clusters []capi.Key) ([]capi.Record, error) {
	var found []capi.Record
	for _, k := range s.condemned {
		r, ok, err := s.Record(ctx, k)
		if err != nil {
			return nil, err
		}
		if ok && len(clusters) > 0 {
			found = append(found, r)
		}
	}
	return found, nil
}

func (s *shared) DeleteRecord(ctx context.Context, key capi.Key) error {
	if err := s.ask("delete"); err != nil {
		return err
	}
	return s.Store.DeleteRecord(ctx, key)
}

func (s *shared) ClusterRecords(ctx context.Context, namespaces ...string) ([]capi.ClusterRecord, error) {
	if err := s.ask(""); err != nil {
		return nil, err
	}
	return s.Store.ClusterRecords(ctx, namespaces...)
}

func (s *shared) CondemnCluster(ctx context.Context, key capi.Key) (bool, string, error) {
	if err := s.ask("condemn cluster"); err != nil {
		return false, "", err
	}
	return s.Store.CondemnCluster(ctx, key)
}

func (s *shared) DeleteCluster(ctx context.Context, key capi.Key) error {
	if err := s.ask("delete cluster"); err != nil {
		return err
	}
	return s.Store.DeleteCluster(ctx, key)
}

func (s *shared) AddEvent(ctx context.Context, e capi.Event) error {
	if err := s.ask("event"); err != nil {
		return err
	}
	return s.Store.AddEvent(ctx, e)
}

// with runs the manifests on a shared store.
func (r *rack) with(ctx context.Context, s *shared, manifest string, on event.Func) (apply.Result, error) {
	r.t.Helper()
	set, plan := planOf(r.t, manifest)
	return apply.New(r.client, s, func(e event.Event) {
		r.mu.Lock()
		r.events = append(r.events, e)
		r.mu.Unlock()
		on(e)
	}, r.opts).ShareSealKey().Apply(ctx, set, plan)
}

func ignore(event.Event) {}

// at calls f once, when a machine begins a step.
func at(machine string, step event.Step, f func()) event.Func {
	var once sync.Once
	return func(e event.Event) {
		if e.Type == event.Started && e.Step == step && e.Machine == "default/"+machine {
			once.Do(f)
		}
	}
}

// The store does not answer for a while. Whenever that begins, nothing stops, and
// when it answers again everything is recorded.
func TestStoreDownForAWhile(t *testing.T) {
	for _, step := range []event.Step{event.StepHardware, event.StepDeployment, event.StepOS, event.StepPackages, event.StepInit, event.StepRecord} {
		t.Run(string(step), func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
				s := &shared{Store: r.store}
				outage := 9 * time.Minute // longer than the operating system takes
				if step != event.StepHardware && step != event.StepDeployment && step != event.StepOS {
					outage = 100 * time.Second // the end waits two minutes
				}
				res, err := r.with(ctx, s, fleet(1), at("cp", step, func() {
					s.stop(true)
					time.AfterFunc(outage, func() { s.stop(false) })
				}))
				if err != nil || res.Counts.Ready != 2 {
					t.Fatalf("%+v, %v", res.Counts, err)
				}
				for _, name := range []string{"cp", "w001"} {
					if rec := r.record(name); !rec.Ready || rec.ProviderID == "" || rec.Step != string(event.StepRecord) {
						t.Errorf("%+v", rec)
					}
				}
				if c, _, err := r.store.ClusterRecord(ctx, capi.ParseKey("c", "default")); err != nil || !c.Initialized {
					t.Errorf("%+v, %v", c, err)
				}
				if said := r.all(event.Warning, ""); step != event.StepHardware && !strings.Contains(said, "the work goes on") {
					t.Errorf("nobody was told: %s", said)
				}
				r.sane(nil)
			})
		})
	}
}

// The store is gone for good in the middle of a run. The machines are finished all
// the same, the end names their provider IDs, and the next run takes them over as
// they are: nothing is installed twice.
func TestStoreDownToTheEnd(t *testing.T) {
	for _, step := range []event.Step{event.StepDeployment, event.StepOS, event.StepPackages, event.StepInit, event.StepRecord} {
		t.Run(string(step), func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
				s := &shared{Store: r.store}
				_, err := r.with(ctx, s, fleet(1), at("cp", step, func() { s.stop(true) }))
				var re *apply.RecordError
				if !errors.Is(err, capi.ErrUnavailable) || !errors.As(err, &re) {
					t.Fatalf("err %v", err)
				}
				for _, m := range r.sim.Machines() {
					if m.HostName != "" && !strings.Contains(err.Error(), capi.ProviderID(m.MAC)) {
						t.Errorf("%s is not named: %v", m.MAC, err)
					}
				}
				s.stop(false)
				res, err := r.with(ctx, s, fleet(1), ignore)
				if err != nil || res.Counts.Ready+res.Counts.Skipped != 2 {
					t.Fatalf("%+v, %v", res.Counts, err)
				}
				inits := 0
				for _, m := range r.sim.Machines() {
					if m.Installs > 1 {
						t.Errorf("%+v", m)
					}
					if h := r.sim.Host(m.MAC); h != nil {
						for _, line := range h.History() {
							if strings.HasPrefix(line, "kubeadm init") {
								inits++
							}
						}
					}
				}
				if inits != 1 {
					t.Errorf("kubeadm init ran %d times", inits)
				}
				r.sane(nil)
			})
		})
	}
}

// Who lost the lock to another run stops, and says to whom.
func TestLockLost(t *testing.T) {
	bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
		s := &shared{Store: r.store}
		lost := errors.New("ann has it now")
		began := time.Now()
		_, err := r.with(ctx, s, fleet(1), at("cp", event.StepPackages, func() { s.lost(lost) }))
		if !errors.Is(err, lost) {
			t.Fatalf("err %v", err)
		}
		if took := time.Since(began); took > 15*time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

// A run that has nothing to do writes nothing, and needs no lock.
func TestApplyAgainWritesNothing(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		s := &shared{Store: r.store}
		if _, err := r.with(ctx, s, fleet(1), ignore); err != nil {
			t.Fatal(err)
		}
		s.writes = nil
		r.sim.ForgetCalls()
		res, err := r.with(ctx, s, fleet(1), ignore)
		if err != nil || res.Counts.Skipped != 2 {
			t.Fatalf("%+v, %v", res.Counts, err)
		}
		if len(s.writes) > 0 || len(r.sim.Mutations()) > 0 {
			t.Errorf("writes %q, mutations %v", s.writes, r.sim.Mutations())
		}
	})
}

// A MAC that another run was quicker to take is left to it.
func TestClaimTakenMeanwhile(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3}, func(ctx context.Context, r *rack) {
		s := &shared{Store: r.store, taken: map[string]capi.Key{}}
		theirs := capi.ParseKey("elsewhere", "other")
		machines := r.sim.Machines()
		for _, m := range machines {
			s.taken[m.MAC] = theirs
		}
		time.AfterFunc(2*time.Minute, func() { // by then two records show it, and one was given back
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, m := range machines[1:] {
				must(t, r.theirs(ctx, theirs, m.MAC))
				theirs.Name += "-2"
			}
			delete(s.taken, machines[0].MAC)
		})
		if _, err := r.with(ctx, s, fleet(0), ignore); err != nil {
			t.Fatal(err)
		}
		if mac := r.record("cp").MAC; mac != machines[0].MAC {
			t.Errorf("got %s", mac)
		}
		if said := r.all(event.Waiting, "cp"); !strings.Contains(said, "is held by Machine other/elsewhere") {
			t.Errorf("waited for: %s", said)
		}
	})
}

// theirs records that a machine of another cluster has a MAC.
func (r *rack) theirs(ctx context.Context, key capi.Key, mac string) error {
	err := r.store.Sync(ctx, &capi.Set{Machines: []*capi.Machine{{Key: key, Infra: &capi.PlunderMachine{Key: key}}}})
	if err != nil {
		return err
	}
	return r.store.SaveRecord(ctx, capi.Record{Key: key, MAC: mac})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// Deployments are written under the lock of the server, which all machines of a
// run share.
func TestServerIsLockedForWrites(t *testing.T) {
	bubble(t, simulator.Config{Machines: 30}, func(ctx context.Context, r *rack) {
		s := &shared{Store: r.store}
		if _, err := r.with(ctx, s, fleet(20), ignore); err != nil {
			t.Fatal(err)
		}
		if s.overlap || s.holders != 0 {
			t.Errorf("overlap %t, held at the end %d", s.overlap, s.holders)
		}
		if s.servers == 0 || s.servers > 10 {
			t.Errorf("taken %d times", s.servers)
		}
	})
}

// A deletion that somebody began in the store is finished by the next apply, and
// the machine is not installed again.
func TestApplyFinishesDeletions(t *testing.T) {
	bubble(t, simulator.Config{Machines: 4}, func(ctx context.Context, r *rack) {
		s := &shared{Store: r.store}
		if _, err := r.with(ctx, s, fleet(1), ignore); err != nil {
			t.Fatal(err)
		}
		gone := r.record("w001")
		s.condemned = []capi.Key{gone.Key}
		res, err := r.with(ctx, s, fleet(2), ignore) // one more worker meanwhile
		if err != nil || res.Counts.Deleted != 1 || res.Counts.Ready != 1 || res.Counts.Skipped != 1 {
			t.Fatalf("%+v, %v", res.Counts, err)
		}
		if _, ok, _ := r.store.Record(ctx, gone.Key); ok {
			t.Error("the record is still there")
		}
		if m := r.box(gone.MAC); !m.Wiped || m.Phase != "looping" {
			t.Errorf("not wiped: %+v", m)
		}
	})
}

// A machine whose host is gone for good is given up without a wipe, if a person
// says so; until then it keeps its record.
func TestForceRemove(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(0), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		rec := r.record("cp")
		r.sim.PowerOff(rec.MAC)
		if _, err := r.delete(ctx, "cp"); err == nil || !r.record("cp").Claimed() {
			t.Fatalf("a host that does not answer was deleted: %v", err)
		}
		posts := r.sim.Count("POST /parlay")
		res, err := r.engine().Delete(ctx, apply.Targets{Machines: []capi.Key{rec.Key}}, apply.DeleteOptions{ForceRemove: true}, yes)
		if err != nil || res.Counts.Deleted != 1 {
			t.Fatalf("%+v, %v", res.Counts, err)
		}
		if _, ok, _ := r.store.Record(ctx, rec.Key); ok || r.sim.Count("POST /parlay") != posts {
			t.Error("the record is still there, or the host was asked")
		}
		events, err := r.store.Events(ctx)
		must(t, err)
		var warned bool
		for _, e := range events {
			warned = warned || e.Type == capi.EventWarning && e.Reason == capi.ReasonDelete && strings.Contains(e.Message, "without a wipe")
		}
		if !warned {
			t.Errorf("no warning among %+v", events)
		}
	})
}

// A forced removal that was interrupted just before the record went is finished, and
// the machine that has the hardware by now keeps its deployment.
func TestForceRemoveOfWhatIsAnothers(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(0), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		rec := r.record("cp")
		must(t, r.client.ReleaseDeployment(ctx, rec.MAC, rec.Address, rec.HostName))
		must(t, r.client.RemoveDeployment(ctx, rec.MAC))
		must(t, r.client.EnsureDeployment(ctx, wire.Deployment{
			MAC: rec.MAC, BootConfigName: "preseed", Config: wire.HostConfig{Address: "192.168.1.250", Hostname: "another"},
		}))
		res, err := r.engine().Delete(ctx, apply.Targets{Machines: []capi.Key{rec.Key}}, apply.DeleteOptions{ForceRemove: true}, yes)
		if err != nil || res.Counts.Deleted != 1 {
			t.Fatalf("%+v, %v", res.Counts, err)
		}
		all, err := r.client.Deployments(ctx)
		must(t, err)
		if d, ok := all.ByMAC(rec.MAC); !ok || d.Config.Hostname != "another" || d.BootConfigName != "preseed" {
			t.Errorf("%+v", d)
		}
	})
}

// Nothing is wiped while it cannot be recorded that it will be, and what was wiped
// is forgotten when the store answers again.
func TestDeleteWhileTheStoreIsDown(t *testing.T) {
	for _, step := range []event.Step{event.StepIdentity, event.StepRelease, event.StepWipe, event.StepReturn, event.StepForget} {
		t.Run(string(step), func(t *testing.T) {
			bubble(t, simulator.Config{Machines: 1}, func(ctx context.Context, r *rack) {
				if _, err := r.apply(ctx, fleet(0), skipKubernetes); err != nil {
					t.Fatal(err)
				}
				rec := r.record("cp")
				s := &shared{Store: r.store}
				down := at("cp", step, func() {
					s.stop(true)
					time.AfterFunc(20*time.Second, func() {
						if early := step == event.StepIdentity || step == event.StepRelease || step == event.StepWipe; early && r.box(rec.MAC).Wiped {
							t.Error("wiped without a record")
						}
						s.stop(false)
					})
				})
				res, err := apply.New(r.client, s, down, r.opts).Delete(ctx, apply.Targets{Machines: []capi.Key{rec.Key}}, apply.DeleteOptions{}, yes)
				if err != nil || res.Counts.Deleted != 1 {
					t.Fatalf("%+v, %v", res.Counts, err)
				}
				if _, ok, _ := r.store.Record(ctx, rec.Key); ok || !r.box(rec.MAC).Wiped {
					t.Errorf("record there: %t, machine %+v", ok, r.box(rec.MAC))
				}
			})
		})
	}
}

// A server that others write to for minutes is waited for, as long as the step may take.
func TestServerLockedByOthers(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1}, func(ctx context.Context, r *rack) {
		s := &shared{Store: r.store, occupied: 3}
		if _, err := r.with(ctx, s, fleet(0), ignore); err != nil {
			t.Fatal(err)
		}
	})
}

// A store that is gone when a deletion begins, and stays so, does not keep it for ever.
func TestDeleteGivesUpOnAStore(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, fleet(0), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		rec := r.record("cp")
		s := &shared{Store: r.store}
		began := time.Now()
		_, err := apply.New(r.client, s, func(e event.Event) {
			if e.Type == event.PlanReady {
				s.stop(true)
			}
		}, r.opts).Delete(ctx, apply.Targets{Machines: []capi.Key{rec.Key}}, apply.DeleteOptions{}, yes)
		if !errors.Is(err, capi.ErrUnavailable) || time.Since(began) > deleteLimit {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if r.box(rec.MAC).Wiped {
			t.Error("wiped without a record")
		}
	})
}
