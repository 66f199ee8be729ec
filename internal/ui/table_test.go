package ui

import (
	"bytes"
	"testing"
)

func testTable() Table {
	return Table{
		Columns: []Column{{Name: "NAME"}, {Name: "PROVIDERID"}, {Name: "PHASE"}, {Name: "HOST NAME", Wide: true}, {Name: "AGE", Wide: true}},
		Rows: [][]string{
			{"controlplane", "plunder://00:50:56:a5:b5:f1", "Provisioned", "controlplane-x1y2z", "7m"},
			{"worker", "", "Failed", "", ""},
			{"grün", "a  b", "Pending", "with\x1b[31m escape\nand line", "1s"},
		},
	}
}

func TestTable(t *testing.T) {
	tests := []struct {
		name string
		opts TableOptions
	}{
		{"table", TableOptions{}},
		{"table-wide", TableOptions{Wide: true}},
		{"table-color", TableOptions{Color: true}},
		{"table-simulated", TableOptions{Prefix: "[simulated] "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var buf bytes.Buffer
			if err := testTable().Write(&buf, tt.opts); err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name, buf.String())
		})
	}
}

func TestTableWithoutRows(t *testing.T) {
	var buf bytes.Buffer
	if err := (Table{Columns: testTable().Columns}).Write(&buf, TableOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := buf.String(), "NAME   PROVIDERID   PHASE\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTableLines(t *testing.T) {
	lines, err := testTable().Lines(TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 4 {
		t.Errorf("want a header and one line per row, got %q", lines)
	}
}
