package apply_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/simulator"
)

var errDiskFull = errors.New("disk full")

// fullDisk is a store whose n-th write, counted from 1, fails, and all after it.
type fullDisk struct {
	apply.Store
	n int

	mu     sync.Mutex
	writes int
}

func (f *fullDisk) full() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writes++; f.n > 0 && f.writes >= f.n {
		return errDiskFull
	}
	return nil
}

func (f *fullDisk) SaveRecord(ctx context.Context, r capi.Record) error {
	return errors.Join(f.full(), f.only(func() error { return f.Store.SaveRecord(ctx, r) }))
}

func (f *fullDisk) SaveClusterRecord(ctx context.Context, r capi.ClusterRecord) error {
	return errors.Join(f.full(), f.only(func() error { return f.Store.SaveClusterRecord(ctx, r) }))
}

func (f *fullDisk) DeleteRecord(ctx context.Context, k capi.Key) error {
	return errors.Join(f.full(), f.only(func() error { return f.Store.DeleteRecord(ctx, k) }))
}

func (f *fullDisk) CondemnCluster(ctx context.Context, k capi.Key) (done bool, observation string, err error) {
	err = f.full()
	err = errors.Join(err, f.only(func() error {
		done, observation, err = f.Store.CondemnCluster(ctx, k)
		return err
	}))
	return done, observation, err
}

func (f *fullDisk) DeleteCluster(ctx context.Context, k capi.Key) error {
	return errors.Join(f.full(), f.only(func() error { return f.Store.DeleteCluster(ctx, k) }))
}

// only writes while the disk is not full.
func (f *fullDisk) only(write func() error) error {
	f.mu.Lock()
	full := f.n > 0 && f.writes >= f.n
	f.mu.Unlock()
	if full {
		return nil
	}
	return write()
}

// The disk is full from the n-th write on, for every n: what was not recorded has
// not happened as far as the next run knows, and it must get along with that.
func TestStoreFullAtEveryWrite(t *testing.T) {
	apply1 := func(ctx context.Context, r *rack, s apply.Store) error {
		set, plan := planOf(t, fleet(1))
		_, err := apply.New(r.client, s, nil, r.opts).ShareSealKey().Apply(ctx, set, plan)
		return err
	}
	delete1 := func(ctx context.Context, r *rack, s apply.Store) error {
		_, err := apply.New(r.client, s, nil, r.opts).Delete(ctx, apply.Targets{Machines: []capi.Key{capi.ParseKey("cp", "default")}}, apply.DeleteOptions{}, yes)
		return err
	}
	for _, tt := range []struct {
		name  string
		ready bool // made ready before
		run   func(context.Context, *rack, apply.Store) error
	}{{"apply", false, apply1}, {"delete", true, delete1}} {
		prepare := func(ctx context.Context, r *rack) {
			if tt.ready {
				if _, err := r.apply(ctx, fleet(1), skipKubernetes); err != nil {
					t.Fatal(err)
				}
			}
		}
		writes := 0
		bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
			prepare(ctx, r)
			disk := &fullDisk{Store: r.store}
			if err := tt.run(ctx, r, disk); err != nil {
				t.Fatal(err)
			}
			writes = disk.writes
		})
		for n := 1; n <= writes; n += sample {
			t.Run(fmt.Sprint(tt.name, " ", n), func(t *testing.T) {
				t.Parallel()
				bubble(t, simulator.Config{Machines: 2}, func(ctx context.Context, r *rack) {
					prepare(ctx, r)
					if err := tt.run(ctx, r, &fullDisk{Store: r.store, n: n}); !errors.Is(err, errDiskFull) {
						t.Errorf("the full disk is not reported: %v", err)
					}
					if err := tt.run(ctx, r, r.store); err != nil {
						t.Errorf("the second run: %v", err)
					}
					for _, m := range r.sim.Machines() {
						if m.Installs != 1 {
							t.Errorf("%+v", m)
						}
					}
					if !tt.ready {
						r.sane(nil)
					}
				})
			})
		}
	}
}
