package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	yamlv3 "go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Kinds of files, which are also the names of their directories.
const (
	dirMachines        = "machines"
	dirPlunderMachines = "plundermachines"
	dirClusters        = "clusters"
	dirPlunderClusters = "plunderclusters"
	dirEvents          = "events"
)

// kindOf is the kind of the objects in the files of a directory.
func kindOf(dir string) string {
	switch dir {
	case dirMachines:
		return "Machine"
	case dirPlunderMachines:
		return "PlunderMachine"
	case dirClusters:
		return "Cluster"
	case dirPlunderClusters:
		return "PlunderCluster"
	default:
		return "List"
	}
}

// Local is a store in a directory:
//
//	lock, lock.json                             who is at work
//	namespaces/<ns>/clusters/<name>.yaml        Cluster, with its record
//	namespaces/<ns>/plunderclusters/<name>.yaml PlunderCluster
//	namespaces/<ns>/machines/<name>.yaml        Machine
//	namespaces/<ns>/plundermachines/<name>.yaml PlunderMachine, with the record of its Machine
//	namespaces/<ns>/events/<kind>.<name>.yaml   events about one object
//	namespaces/<ns>/kubeconfigs/<cluster>       kubeconfig of a cluster
//	namespaces/<ns>/pki/<cluster>               keys of its control plane, with pki: tool
//
// The objects are those that were given, with their status, as kubectl would show
// them; secrets in them (spec.bootstrap.data) are replaced by their SHA-256.
// Everything is read from disk each time, so that other processes' writes are
// seen. Each write takes the lock for its own time if no Lock is held. Files have
// mode 0600, directories 0700; directories are created by the first write.
type Local struct {
	dir string

	mu     sync.Mutex
	lock   *flock.Flock // held by Lock, or nil
	holder Holder       // of lock
	claims *claims      // while lock is held and once they were needed, or nil
}

// OpenLocal opens the store in a directory, which need not exist.
func OpenLocal(dir string) (*Local, error) {
	if dir == "" {
		return nil, errors.New("no directory given for the local store")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("local store %s: %w", dir, err)
	}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("local store: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("local store %s: not a directory", abs)
	}
	return &Local{dir: abs}, nil
}

// Dir is the store's directory, absolute.
func (l *Local) Dir() string { return l.dir }

// String is "local store <directory>".
func (l *Local) String() string { return "local store " + l.dir }

// Sync stores the given objects. What earlier runs recorded about them stays;
// objects that are stored and not given stay too. A machine that already has its
// hardware may not be given another MAC, address or PlunderMachine: all such
// changes are reported at once, as *ClaimedError, and nothing is written.
func (l *Local) Sync(ctx context.Context, set *capi.Set) error {
	return l.write(ctx, func() error {
		groups, err := l.synced(ctx, set)
		if err != nil {
			return err
		}
		err = parallel(ctx, len(groups), func(i int) error { return l.replace(groups[i]) })
		if err != nil {
			return err
		}
		return l.syncDirs(slices.Concat(groups...))
	})
}

// Look implements the Store interface of pkg/apply. Nobody marks objects here but
// the user, in the manifests, so the set stays as it is.
func (l *Local) Look(ctx context.Context, set *capi.Set) (inSync bool, err error) {
	groups, err := l.synced(ctx, set)
	if err != nil {
		return false, err
	}
	for _, f := range slices.Concat(groups...) {
		if f.stored == nil || !reflect.DeepEqual(f.object, f.stored) {
			return false, nil
		}
	}
	return true, nil
}

// file is an object and where it is stored.
type file struct {
	path   string
	object object // to be stored
	stored object // as it is stored, nil when it is not; only Sync keeps it
	old    []byte // the same, undecoded
}

// synced computes what Sync has to write, in groups whose order matters: a
// PlunderMachine comes before its Machine, for a Machine in the store has one.
func (l *Local) synced(ctx context.Context, set *capi.Set) ([][]file, error) {
	machines, clusters := len(set.Machines), len(set.Clusters)
	groups := make([][]file, machines+clusters)
	problems := make([][]error, machines)
	err := parallel(ctx, len(groups), func(i int) (err error) {
		if i < machines {
			groups[i], problems[i], err = l.syncedMachine(set.Machines[i])
		} else {
			groups[i], err = l.syncedCluster(set.Clusters[i-machines])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return groups, errors.Join(slices.Concat(problems...)...)
}

// syncedMachine also returns what the user may not change about the machine.
func (l *Local) syncedMachine(m *capi.Machine) ([]file, []error, error) {
	pm, err := l.merge(dirPlunderMachines, m.Infra.Key, func() (object, error) { return plunderMachineManifest(m.Infra) })
	if err != nil {
		return nil, nil, err
	}
	cm, err := l.merge(dirMachines, m.Key, func() (object, error) { return redacted(machineManifest(m)) })
	if err != nil {
		return nil, nil, err
	}
	r, ok, err := recordOf(pm.object)
	if err != nil {
		return nil, nil, &CorruptError{Path: pm.path, Err: err}
	}
	if ok && r.Key != m.Key {
		return nil, []error{&ClaimedError{
			Kind: "PlunderMachine", Key: m.Infra.Key, Field: "its Machine",
			Old: r.Key.String(), New: m.Key.String(), Machine: r.Key,
		}}, nil
	}
	old, found := r, ok
	if other, named := cm.stored.infraKey(); named && other != m.Infra.Key {
		// The machine's record is with another PlunderMachine than the given one.
		if old, found, err = l.recordIn(other); err != nil {
			return nil, nil, err
		}
	}
	if found && old.Key == m.Key {
		if problems := checkGiven(m, old); len(problems) > 0 {
			return nil, problems, nil
		}
	}
	if ok {
		if err := setRecord(pm.object, r, r, true); err != nil {
			return nil, nil, err
		}
		showMachine(cm.object, capi.Record{}, r)
	}
	return []file{pm, cm}, nil, nil
}

func (l *Local) syncedCluster(c *capi.Cluster) ([]file, error) {
	cluster, err := l.merge(dirClusters, c.Key, func() (object, error) { return clusterManifest(c) })
	if err != nil {
		return nil, err
	}
	r, ok, err := clusterRecordOf(cluster.object)
	if err != nil {
		return nil, &CorruptError{Path: cluster.path, Err: err}
	}
	if ok {
		if err := setClusterRecord(cluster.object, r); err != nil {
			return nil, err
		}
	}
	if c.Infra == nil {
		return []file{cluster}, nil
	}
	infra, err := l.merge(dirPlunderClusters, c.Infra.Key, func() (object, error) { return plunderClusterManifest(c.Infra) })
	if err != nil {
		return nil, err
	}
	if ok {
		showPlunderCluster(infra.object, r)
	}
	return []file{infra, cluster}, nil
}

// merge is a given manifest with what is stored about it.
func (l *Local) merge(kind string, key capi.Key, manifest func() (object, error)) (file, error) {
	f, _, err := l.load(kind, key)
	if err != nil {
		return file{}, err
	}
	given, err := manifest()
	if err != nil {
		return file{}, err
	}
	f.stored = f.object
	carryOver(given, f.stored)
	f.object = given
	return f, nil
}

// Record implements the Store interface of pkg/apply.
func (l *Local) Record(ctx context.Context, key capi.Key) (capi.Record, bool, error) {
	if err := ctx.Err(); err != nil {
		return capi.Record{}, false, fmt.Errorf("read the record of Machine %s: %w", key, err)
	}
	path, err := l.path(dirMachines, key)
	if err != nil {
		return capi.Record{}, false, err
	}
	data, err := readFile(path)
	if err != nil {
		return capi.Record{}, false, err
	}
	return l.recordFrom(data, path, key)
}

// recordFrom finds the record of a Machine by the content of its file (nil: none).
func (l *Local) recordFrom(data []byte, path string, key capi.Key) (r capi.Record, ok bool, err error) {
	if data == nil {
		return r, false, nil
	}
	var doc storedDoc
	if err := doc.parse(data, dirMachines, key); err != nil {
		return r, false, &CorruptError{Path: path, Err: err}
	}
	pmKey := capi.Key{Namespace: key.Namespace, Name: doc.Spec.InfrastructureRef.Name}
	if pmKey.Name == "" {
		return r, false, noReference(path)
	}
	r, ok, err = l.recordIn(pmKey)
	if err != nil || !ok || r.Key != key {
		return capi.Record{}, false, err
	}
	return r, true, nil
}

func noReference(path string) error {
	return &CorruptError{Path: path, Err: errors.New("spec.infrastructureRef.name is missing")}
}

// recordIn is the record in a PlunderMachine, whichever Machine it is of.
func (l *Local) recordIn(key capi.Key) (r capi.Record, ok bool, err error) {
	path, err := l.path(dirPlunderMachines, key)
	if err != nil {
		return r, false, err
	}
	data, err := readFile(path)
	if err != nil || data == nil {
		return r, false, err
	}
	var doc storedDoc
	if err = doc.parse(data, dirPlunderMachines, key); err == nil {
		r, ok, err = parseRecord(doc.Metadata.Annotations[AnnotationRecord], doc.Status)
	}
	if err != nil {
		return r, false, &CorruptError{Path: path, Err: err}
	}
	if ok {
		r.Protected, err = l.protected(r.Key, doc.Metadata.Annotations)
	}
	return r, ok && err == nil, err
}

// Records implements the Store interface of pkg/apply.
func (l *Local) Records(ctx context.Context, namespaces ...string) ([]capi.Record, error) {
	keys, err := l.list(dirPlunderMachines)
	if err != nil {
		return nil, err
	}
	if len(namespaces) > 0 { // a record is in the namespace of its Machine
		keys = slices.DeleteFunc(keys, func(k capi.Key) bool { return !slices.Contains(namespaces, k.Namespace) })
	}
	found := make([]*capi.Record, len(keys))
	err = parallel(ctx, len(keys), func(i int) error {
		r, ok, err := l.recordIn(keys[i])
		if ok {
			found[i] = &r
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	records := make([]capi.Record, 0, len(keys))
	for _, r := range found {
		if r != nil {
			records = append(records, *r)
		}
	}
	slices.SortFunc(records, func(a, b capi.Record) int { return compareKeys(a.Key, b.Key) })
	return records, nil
}

// SaveRecord writes the record of a machine that was synced before. A MAC or an
// address that another machine's record holds is a *TakenError.
func (l *Local) SaveRecord(ctx context.Context, r capi.Record) error {
	return l.write(ctx, func() error {
		m, ok, err := l.load(dirMachines, r.Key)
		if err != nil {
			return err
		}
		if !ok {
			return &NotSyncedError{Kind: "Machine", Key: r.Key}
		}
		pmKey, ok := m.object.infraKey()
		if !ok {
			return noReference(m.path)
		}
		if r.PlunderMachine != (capi.Key{}) && r.PlunderMachine != pmKey {
			return fmt.Errorf("save the record of Machine %s: it is for PlunderMachine %s, but the Machine in %s has %s",
				r.Key, r.PlunderMachine, l, pmKey)
		}
		r.PlunderMachine = pmKey
		pm, ok, err := l.load(dirPlunderMachines, pmKey)
		if err != nil {
			return err
		}
		if !ok {
			return &NotSyncedError{Kind: "PlunderMachine", Key: pmKey}
		}
		old, had, err := recordOf(pm.object)
		if err != nil {
			return &CorruptError{Path: pm.path, Err: err}
		}
		if had && old.Key != r.Key {
			return fmt.Errorf("save the record of Machine %s: PlunderMachine %s is Machine %s's", r.Key, pmKey, old.Key)
		}
		if err := l.loadClaims(ctx); err != nil {
			return err
		}
		if err := l.claims.check(r); err != nil {
			return err
		}
		if err := setRecord(pm.object, old, r, true); err != nil {
			return err
		}
		showMachine(m.object, old, r)
		// The PlunderMachine is the record; the Machine only shows it.
		err = l.writeAll(pm, m)
		if err != nil {
			l.claims = nil // whether it was written is unknown: read again
			return err
		}
		l.claims.put(r)
		return nil
	})
}

// Claims implements the Store interface of pkg/apply.
func (l *Local) Claims(ctx context.Context) (map[string]capi.Key, error) {
	records, err := l.Records(ctx)
	if err != nil {
		return nil, err
	}
	return newClaims(records).macs, nil
}

// Condemn implements the Store interface of pkg/apply. That the deletion of a
// machine has begun is in its record, which the engine writes.
func (l *Local) Condemn(ctx context.Context, key capi.Key) (done bool, observation string, err error) {
	r, ok, err := l.Record(ctx, key)
	if err == nil && ok && r.Protected {
		err = &ProtectedError{Machines: []capi.Key{key}}
	}
	return err == nil, "", err
}

// Condemned implements the Store interface of pkg/apply. Nobody but capplunder
// deletes here, and what it began it goes on with when told to.
func (l *Local) Condemned(context.Context, []capi.Key) ([]capi.Record, error) { return nil, nil }

func (l *Local) loadClaims(ctx context.Context) error {
	if l.claims != nil {
		return nil
	}
	records, err := l.Records(ctx)
	if err != nil {
		return err
	}
	l.claims = newClaims(records)
	return nil
}

// DeleteRecord removes a machine: its record and its objects. Events about it
// stay. None is no error.
func (l *Local) DeleteRecord(ctx context.Context, key capi.Key) error {
	return l.write(ctx, func() error {
		m, ok, err := l.load(dirMachines, key)
		if err != nil {
			return err
		}
		var infra []capi.Key
		if ok {
			pmKey, named := m.object.infraKey()
			if !named {
				return noReference(m.path)
			}
			infra = append(infra, pmKey)
		} else {
			// Without the Machine the record is found only by looking at all.
			records, err := l.Records(ctx)
			if err != nil {
				return err
			}
			for _, r := range records {
				if r.Key == key {
					infra = append(infra, r.PlunderMachine)
				}
			}
		}
		l.claims = nil
		// The record goes first: a Machine without record claims nothing.
		for _, pmKey := range infra {
			r, had, err := l.recordIn(pmKey)
			if err != nil {
				return err
			}
			if had && r.Key != key {
				continue
			}
			path, err := l.path(dirPlunderMachines, pmKey)
			if err != nil {
				return err
			}
			if err := removeFile(path); err != nil {
				return err
			}
		}
		return removeFile(m.path)
	})
}

// Clusters are the stored Clusters and PlunderClusters, for manifests of machines
// that come without theirs.
func (l *Local) Clusters(ctx context.Context) ([]capi.Document, error) {
	var docs []capi.Document
	for _, kind := range []string{dirClusters, dirPlunderClusters} {
		keys, err := l.list(kind)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			f, ok, err := l.load(kind, key)
			if err != nil {
				return nil, err
			}
			if ok {
				docs = append(docs, capi.Document{Origin: capi.Origin{File: f.path, Document: 1, Line: 1}, Raw: f.old})
			}
		}
	}
	return docs, nil
}

// ClusterRecord implements the Store interface of pkg/apply.
func (l *Local) ClusterRecord(ctx context.Context, key capi.Key) (r capi.ClusterRecord, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return r, false, fmt.Errorf("read the record of Cluster %s: %w", key, err)
	}
	f, ok, err := l.load(dirClusters, key)
	if err != nil || !ok {
		return r, false, err
	}
	return l.clusterRecordOf(f, key)
}

// clusterRecordOf is the record in the file of a Cluster.
func (l *Local) clusterRecordOf(f file, key capi.Key) (r capi.ClusterRecord, ok bool, err error) {
	r, ok, err = clusterRecordOf(f.object)
	if err == nil && ok && r.Key != key {
		err = fmt.Errorf("it has the record of Cluster %s", r.Key)
	}
	if err != nil {
		return capi.ClusterRecord{}, false, &CorruptError{Path: f.path, Err: err}
	}
	return r, ok, nil
}

// SaveClusterRecord writes the record of a cluster that was synced before. With the
// last of its control plane its kubeconfig and its keys go.
func (l *Local) SaveClusterRecord(ctx context.Context, r capi.ClusterRecord) error {
	return l.write(ctx, func() error {
		c, ok, err := l.load(dirClusters, r.Key)
		if err != nil {
			return err
		}
		if !ok {
			return &NotSyncedError{Kind: "Cluster", Key: r.Key}
		}
		old, _, err := clusterRecordOf(c.object)
		if err != nil {
			return &CorruptError{Path: c.path, Err: err}
		}
		r = stillDeleting(old, r)
		if err := setClusterRecord(c.object, r); err != nil {
			return err
		}
		files := []file{c}
		if r.PlunderCluster != (capi.Key{}) {
			pc, ok, err := l.load(dirPlunderClusters, r.PlunderCluster)
			if err != nil {
				return err
			}
			if !ok {
				return &NotSyncedError{Kind: "PlunderCluster", Key: r.PlunderCluster}
			}
			showPlunderCluster(pc.object, r)
			files = append(files, pc)
		}
		if givenUp(old, r) { // before the record says so, for nobody would do it after
			if err := l.dropKeys(r.Key); err != nil {
				return err
			}
		}
		return l.writeAll(files...)
	})
}

// AddEvent adds an event: one that was there before in everything but its times
// is counted. The newest 200 different events of an object are kept.
func (l *Local) AddEvent(ctx context.Context, e capi.Event) error {
	return l.write(ctx, func() error {
		path, err := l.eventPath(e)
		if err != nil {
			return err
		}
		data, err := readFile(path)
		if err != nil {
			return err
		}
		var events []capi.Event
		if data != nil {
			if events, err = decodeEvents(data); err != nil {
				return &CorruptError{Path: path, Err: err}
			}
		}
		data, err = encodeEvents(addEvent(events, e, time.Now()))
		if err != nil {
			return err
		}
		return writeFile(path, data)
	})
}

// Events implements the Store interface of pkg/apply.
func (l *Local) Events(ctx context.Context) ([]capi.Event, error) {
	keys, err := l.list(dirEvents)
	if err != nil {
		return nil, err
	}
	found := make([][]capi.Event, len(keys))
	err = parallel(ctx, len(keys), func(i int) error {
		path, err := l.path(dirEvents, keys[i])
		if err != nil {
			return err
		}
		data, err := readFile(path)
		if err != nil || data == nil {
			return err
		}
		if found[i], err = decodeEvents(data); err != nil {
			return &CorruptError{Path: path, Err: err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	events := slices.Concat(found...)
	sortEvents(events)
	return events, nil
}

// write runs a change under the lock: the one that Lock holds, or else one of its
// own for as long as the change takes.
func (l *Local) write(ctx context.Context, change func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write to %s: %w", l, err)
	}
	if l.lock != nil {
		return change()
	}
	lock, err := l.flock()
	if err != nil {
		return err
	}
	l.claims = nil // others may have written
	err = change()
	l.claims = nil
	return errors.Join(err, lock.Unlock())
}

// path of an object's file. A name that Kubernetes would not take is refused, and
// with it everything that could lead out of the directory.
func (l *Local) path(kind string, key capi.Key) (string, error) {
	if problems := validation.IsDNS1123Label(key.Namespace); len(problems) > 0 {
		return "", fmt.Errorf("%s %q: the namespace is not a valid name: %s", kindOf(kind), key, problems[0])
	}
	if problems := validation.IsDNS1123Subdomain(key.Name); len(problems) > 0 {
		return "", fmt.Errorf("%s %q: not a valid name: %s", kindOf(kind), key, problems[0])
	}
	return filepath.Join(l.dir, "namespaces", key.Namespace, kind, key.Name+".yaml"), nil
}

func (l *Local) eventPath(e capi.Event) (string, error) {
	return l.path(dirEvents, capi.Key{Namespace: e.Object.Namespace, Name: strings.ToLower(e.Kind) + "." + e.Object.Name})
}

// load reads an object for changing it; ok is false when there is none.
func (l *Local) load(kind string, key capi.Key) (f file, ok bool, err error) {
	f.path, err = l.path(kind, key)
	if err != nil {
		return f, false, err
	}
	f.old, err = readFile(f.path)
	if err != nil || f.old == nil {
		return f, false, err
	}
	f.object, err = decodeObject(f.old)
	if err == nil {
		err = checkNames(f.object.text("kind"), f.object.text("metadata", "namespace"), f.object.text("metadata", "name"), kind, key)
	}
	if err != nil {
		return file{}, false, &CorruptError{Path: f.path, Err: err}
	}
	return f, true, nil
}

// writeAll writes the files that differ from what is stored, in this order, and
// returns when all of them are durable.
func (l *Local) writeAll(files ...file) error {
	if err := l.replace(files); err != nil {
		return err
	}
	return l.syncDirs(files)
}

func (l *Local) replace(files []file) error {
	for _, f := range files {
		if f.stored != nil && reflect.DeepEqual(f.object, f.stored) {
			continue // saves the encoding, which is most of the work
		}
		data, err := f.object.encode()
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		if bytes.Equal(data, f.old) {
			continue
		}
		if err := replaceFile(f.path, data); err != nil {
			return err
		}
	}
	return nil
}

// syncDirs makes the names of the files durable.
func (l *Local) syncDirs(files []file) error {
	var dirs []string
	for _, f := range files {
		if dir := filepath.Dir(f.path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// list is the keys of all files of a kind, sorted. A file that is not one of ours
// stops everything: it may be a record under a wrong name.
func (l *Local) list(kind string) ([]capi.Key, error) {
	namespaces, err := readDir(filepath.Join(l.dir, "namespaces"))
	if err != nil {
		return nil, err
	}
	var keys []capi.Key
	for _, ns := range namespaces {
		dir := filepath.Join(l.dir, "namespaces", ns.Name(), kind)
		if problems := validation.IsDNS1123Label(ns.Name()); !ns.IsDir() || len(problems) > 0 {
			return nil, &CorruptError{Path: filepath.Dir(dir), Err: errors.New("not the directory of a namespace")}
		}
		entries, err := readDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name, ours := strings.CutSuffix(e.Name(), ".yaml")
			if !ours || e.IsDir() || len(validation.IsDNS1123Subdomain(name)) > 0 {
				return nil, &CorruptError{Path: filepath.Join(dir, e.Name()), Err: errors.New("not a file of this store")}
			}
			keys = append(keys, capi.Key{Namespace: ns.Name(), Name: name})
		}
	}
	slices.SortFunc(keys, compareKeys)
	return keys, nil
}

// readDir lists a directory without hidden files, which are half written or an
// editor's; none is empty.
func readDir(dir string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("local store: %w", err)
	}
	return slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }), nil
}

// readFile returns nil when there is no file, and never nil when there is one.
func readFile(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("local store: %w", err)
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}

// storedDoc is the part of a stored object that reading records needs, so that a
// thousand of them can be read at once without building all their fields.
type storedDoc struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name        string            `yaml:"name"`
		Namespace   string            `yaml:"namespace"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	} `yaml:"metadata"`
	Spec struct {
		ClusterName       string `yaml:"clusterName"`
		InfrastructureRef struct {
			Name string `yaml:"name"`
		} `yaml:"infrastructureRef"`
	} `yaml:"spec"`
	Status shownStatus `yaml:"status"`
}

func (d *storedDoc) parse(data []byte, kind string, key capi.Key) error {
	if err := yamlv3.Unmarshal(data, d); err != nil {
		return err
	}
	return checkNames(d.Kind, d.Metadata.Namespace, d.Metadata.Name, kind, key)
}

// checkNames makes sure that a file holds what its name says.
func checkNames(kind, namespace, name, wantKind string, want capi.Key) error {
	if got := (capi.Key{Namespace: namespace, Name: name}); kind != kindOf(wantKind) || got != want {
		return fmt.Errorf("it holds %q %q, not %s %s", kind, got, kindOf(wantKind), want)
	}
	return nil
}

// parallel calls f for 0 to n-1 on all processors and returns the first error.
func parallel(ctx context.Context, n int, f func(i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f(i)
		})
	}
	return g.Wait()
}
