package host

import (
	"context"
	"errors"
)

// ErrDown: the host is not running.
var ErrDown = errors.New("the host is down")

type World struct{}

func NewWorld() *World                                            { return &World{} }
func (w *World) RunLocal(ctx context.Context, line string) Result { return Result{} }

type Host struct{}

func New(cfg Config) *Host                                { return &Host{} }
func (h *Host) Run(ctx context.Context, c Command) Result { return Result{} }
func (h *Host) Wiped() bool                               { return false }
func (h *Host) OnReset(f func())                          {}
func (h *Host) Reboot()                                   {}
func (h *Host) Close()                                    {}
func (h *Host) History() []string                         { return nil }
func (h *Host) BootID() string                            { return "" }

type Snapshot struct{}

func (h *Host) Snapshot() Snapshot       { return Snapshot{} }
func Restore(s Snapshot, w *World) *Host { return &Host{} }
