package host

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"time"
)

// Snapshot is a host as JSON: what a power cut would leave, and what is needed to
// go on as if it had not happened. Processes are not in it, detached ones neither.
type Snapshot struct {
	Config   Config
	Files    []savedFile `json:",omitempty"` // that a fresh installation has not, or has otherwise
	Removed  []string    `json:",omitempty"` // that a fresh installation has
	Disks    []savedDisk
	BootID   string
	BootTime time.Time
	Random   []byte
	System   savedSystem
	Down     bool `json:",omitempty"`
	ReadOnly bool `json:",omitempty"`
}

type savedFile struct {
	Path  string
	Mode  fs.FileMode
	UID   int `json:",omitempty"`
	GID   int `json:",omitempty"`
	MTime time.Time
	Data  []byte `json:",omitempty"`
}

// SavedDrive is a disk as JSON.
type SavedDrive struct {
	DiskConfig
	Disk savedDisk
}

// Snapshot copies a disk that is in no host; those of hosts are in their snapshots.
func (d *Drive) Snapshot() SavedDrive { return SavedDrive{d.DiskConfig, d.snapshot()} }

// Drive makes the disk again.
func (s SavedDrive) Drive() *Drive { return s.Disk.drive(s.DiskConfig) }

// savedDisk is what is on a disk. Its configuration is in the host's, if it is in one.
type savedDisk struct {
	sparse
	Identity

	Parts    []partition `json:",omitempty"`
	Password string      `json:",omitempty"` // hashed
}

func (d *Drive) snapshot() savedDisk {
	return savedDisk{sparse: d.d.snapshot(), Identity: d.Identity, Parts: d.parts, Password: d.password}
}

func (s savedDisk) drive(c DiskConfig) *Drive {
	d := &Drive{DiskConfig: c, Identity: s.Identity, d: s.disk(), parts: s.Parts, password: s.Password}
	d.d.ro = c.ReadOnly
	if d.WWN == "" && d.Model == "" && !c.Anonymous && !c.virtio() { // of an earlier program
		d.WWN, d.Model = "t10.ATA     SIMULATED DISK      "+d.Serial, "SIMULATED DISK"
	}
	return d
}

type savedSystem struct {
	HostName string
	Packages map[string]installed `json:",omitempty"`
	Index    map[string]bool      `json:",omitempty"`
	Units    map[string]*unit
	Modules  map[string]bool   `json:",omitempty"`
	Sysctls  map[string]string `json:",omitempty"`
	Swap     bool              `json:",omitempty"`
	Images   bool              `json:",omitempty"`
	Mounts   []mounted         `json:",omitempty"`
	// Permissive is SELinux that only warns.
	Permissive bool         `json:",omitempty"`
	Locked     time.Time    `json:",omitzero"`
	Cluster    *clusterData `json:",omitempty"`
	Member     uint64       `json:",omitempty"` // of the cluster's etcd
	Node       string       `json:",omitempty"`
}

// Snapshot copies the state of the host.
func (h *Host) Snapshot() Snapshot {
	s := Snapshot{Config: h.cfg}
	h.fs.mu.Lock()
	for _, d := range h.disks {
		s.Disks = append(s.Disks, d.snapshot())
	}
	h.fs.mu.Unlock()
	fresh := newHost(h.cfg)
	fresh.disks = h.disks[:min(1, len(h.disks))] // fstab names the first
	fresh.install()

	h.mu.Lock()
	s.BootID, s.BootTime, s.Down = h.bootID, h.bootTime, !h.up
	s.Random, _ = h.src.MarshalBinary() // never fails
	y := &h.sys
	saved := savedSystem{
		HostName: y.hostName, Packages: y.packages, Index: y.index, Units: y.units, Modules: y.modules, Sysctls: y.sysctls,
		Swap: y.swap, Images: y.images, Mounts: y.mounts, Permissive: y.permissive, Locked: y.lockedUntil,
	}
	saved.Member, saved.Node = y.member, y.node
	if y.cluster != nil {
		saved.Cluster = look(y.cluster, func(d *clusterData) *clusterData { return new(deepCopy(*d)) })
	}
	s.System = deepCopy(saved)
	h.mu.Unlock()

	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	s.ReadOnly = h.fs.readOnly
	for _, p := range h.fs.tree("/") {
		n := h.fs.nodes[p]
		if p == "/" || n.volatile || n.gen != nil || n.written != nil || n.block != nil || n.mode&(fs.ModeDevice|fs.ModeNamedPipe) != 0 {
			continue
		}
		if f := fresh.fs.nodes[p]; f != nil && f.mode == n.mode && f.uid == n.uid && f.gid == n.gid && bytes.Equal(f.data, n.data) {
			continue
		}
		s.Files = append(s.Files, savedFile{p, n.mode, n.uid, n.gid, n.mtime, bytes.Clone(n.data)})
	}
	for _, p := range fresh.fs.tree("/") {
		if h.fs.nodes[p] == nil {
			s.Removed = append(s.Removed, p)
		}
	}
	return s
}

// deepCopy copies by way of JSON, which a snapshot goes through anyway.
func deepCopy[T any](v T) T {
	var out T
	if b, err := json.Marshal(v); err == nil {
		_ = json.Unmarshal(b, &out)
	}
	return out
}

// Restore makes a host of a snapshot, in the given rack.
func Restore(s Snapshot, w *World) *Host {
	s = deepCopy(s)
	s.Config.World = w
	for i, d := range s.Disks {
		s.Config.Drives = append(s.Config.Drives, d.drive(s.Config.Disk[i]))
	}
	h := newHost(s.Config)
	h.install()
	h.bootID, h.bootTime, h.pid = s.BootID, s.BootTime, 1000
	_ = h.src.UnmarshalBinary(s.Random)
	h.sys = system{
		profile: h.sys.profile, hostName: s.System.HostName, packages: orEmpty(s.System.Packages), index: orEmpty(s.System.Index),
		units: orEmpty(s.System.Units), modules: orEmpty(s.System.Modules), sysctls: orEmpty(s.System.Sysctls),
		swap: s.System.Swap, images: s.System.Images, mounts: s.System.Mounts, permissive: s.System.Permissive, lockedUntil: s.System.Locked,
	}
	h.sys.node = s.System.Node
	if s.System.Cluster != nil {
		h.world.adopt(*s.System.Cluster).attach(s.System.Member, h)
	}
	for _, p := range s.Removed {
		_ = h.fs.remove(who{}, p, true)
	}
	h.kernelFiles()
	for _, f := range s.Files {
		h.fs.put(f.Path, &node{mode: f.Mode, uid: f.UID, gid: f.GID, mtime: f.MTime, data: f.Data})
	}
	for name, u := range h.sys.units {
		if u.Active {
			h.serviceFiles(name)
		}
	}
	for m := range h.sys.modules {
		h.loadModule(m)
	}
	h.fs.readOnly = s.ReadOnly
	if !s.Down {
		h.start()
	}
	return h
}

func orEmpty[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}
