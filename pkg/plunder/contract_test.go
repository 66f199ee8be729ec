package plunder_test

import (
	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/plunder"
)

// The engine sees the client through an interface of its own.
var _ apply.Server = (*plunder.Client)(nil)
