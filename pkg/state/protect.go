package state

import (
	"bytes"
	"context"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// protected reports whether annotations keep a machine from being deleted.
func protected(annotations map[string]string) bool {
	value, ok := annotations[capi.AnnotationProtected]
	return ok && value != "false"
}

// protects is protected for a whole object.
func protects(o object) bool {
	value, ok := o.at("metadata", "annotations")[capi.AnnotationProtected]
	return ok && value != "false"
}

// setProtected puts the annotation on an object, or takes it off.
func setProtected(o object, on bool) {
	switch {
	case on && !protects(o):
		o.in("metadata", "annotations")[capi.AnnotationProtected] = "true"
	case !on && o.at("metadata", "annotations") != nil:
		annotations := o.in("metadata", "annotations")
		delete(annotations, capi.AnnotationProtected)
		if len(annotations) == 0 {
			delete(o.in("metadata"), "annotations")
		}
	}
}

// protected reports whether a machine may not be deleted; plunder are the annotations of
// its PlunderMachine.
func (l *Local) protected(machine capi.Key, plunder map[string]string) (bool, error) {
	if protected(plunder) {
		return true, nil
	}
	path, err := l.path(dirMachines, machine)
	if err != nil {
		return false, err
	}
	data, err := readFile(path)
	if err != nil || !bytes.Contains(data, []byte(capi.AnnotationProtected)) {
		return false, err
	}
	var doc storedDoc
	if err := doc.parse(data, dirMachines, machine); err != nil {
		return false, &CorruptError{Path: path, Err: err}
	}
	return protected(doc.Metadata.Annotations), nil
}

// Protect sets the annotation on the stored Machine, or takes it off that and its
// PlunderMachine. Of a machine whose Machine is gone the PlunderMachine has it.
func (l *Local) Protect(ctx context.Context, machine capi.Key, on bool) error {
	return l.write(ctx, func() error {
		m, known, err := l.load(dirMachines, machine)
		if err != nil {
			return err
		}
		at, named := m.object.infraKey()
		if !known {
			records, err := l.Records(ctx, machine.Namespace)
			if err != nil {
				return err
			}
			for _, r := range records {
				if r.Key == machine {
					at, named = r.PlunderMachine, true
				}
			}
		}
		var files []file
		if known {
			files = append(files, m)
		}
		if named && (!known || !on) {
			pm, ok, err := l.load(dirPlunderMachines, at)
			if err != nil {
				return err
			}
			if ok {
				files = append(files, pm)
			}
		}
		if len(files) == 0 {
			return &MissingError{Kind: "Machine", Key: machine, Store: l.String()}
		}
		for _, f := range files {
			setProtected(f.object, on)
		}
		return l.writeAll(files...)
	})
}

// Protect is as Local.Protect.
func (m *Memory) Protect(ctx context.Context, machine capi.Key, on bool) error {
	return m.do(ctx, m.FailProtect, func() error {
		stored, ok := m.machines[machine]
		if !ok {
			return &MissingError{Kind: "Machine", Key: machine, Store: m.String()}
		}
		stored.protected = on
		stored.protectedPlunder = stored.protectedPlunder && on
		m.machines[machine] = stored
		return nil
	})
}

// protected reports whether somebody has protected the machine.
func (p pair) protected() bool {
	return p.machine != nil && protects(p.machine.Object) || p.infra != nil && protects(p.infra.Object)
}

// Protect sets the annotation on the Machine (on the PlunderMachine where the Machine is a
// Cluster API manager's, or gone), or takes it off both.
func (k *Kubernetes) Protect(ctx context.Context, machine capi.Key, on bool) error {
	p, err := k.pair(ctx, machine)
	switch {
	case err != nil:
		return err
	case p.machine == nil && p.infra == nil:
		return &MissingError{Kind: "Machine", Key: machine, Store: k.String()}
	}
	annotate := func(o object) error {
		setProtected(o, on)
		return nil
	}
	if p.machine != nil && (!on || p.infra == nil || !k.client.Schema.Managed(p.machine)) {
		if _, err := k.change(ctx, k.machines(), machine, annotate); err != nil {
			return err
		}
		if on {
			return nil
		}
	}
	if p.infra == nil {
		return nil
	}
	_, err = k.change(ctx, k.plunderMachines(), keyOf(p.infra), annotate)
	return err
}
