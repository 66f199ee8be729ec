package ui

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// Column is one column of a Table.
type Column struct {
	Name string // as shown, upper case
	Wide bool   // shown by -o wide only
}

// Table is rows under named columns. Every row has a cell for every column.
type Table struct {
	Columns []Column
	Rows    [][]string
}

// TableOptions change how a table looks.
type TableOptions struct {
	Wide   bool
	Color  bool
	Prefix string // of every line
}

// columnGap separates columns, as kubectl has it.
const columnGap = "   "

// Write renders the table. A table without rows has its header.
func (t Table) Write(w io.Writer, opts TableOptions) error {
	lines, err := t.Lines(opts)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

// Lines renders the table: the header, then one line per row.
func (t Table) Lines(opts TableOptions) ([]string, error) {
	var buf bytes.Buffer
	table := tablewriter.NewTable(&buf,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders:  tw.BorderNone,
			Settings: tw.Settings{Lines: tw.LinesNone, Separators: tw.SeparatorsNone},
		})),
		tablewriter.WithAlignment(tw.Alignment{tw.AlignLeft}),
		tablewriter.WithHeaderAlignment(tw.AlignLeft),
		tablewriter.WithRowAlignment(tw.AlignLeft),
		tablewriter.WithHeaderAutoFormat(tw.Off),
		tablewriter.WithHeaderAutoWrap(tw.WrapNone),
		tablewriter.WithRowAutoWrap(tw.WrapNone),
		tablewriter.WithPadding(tw.Padding{Right: columnGap, Overwrite: true}),
	)
	table.Header(t.header(opts.Wide))
	for _, row := range t.Rows {
		if err := table.Append(t.row(row, opts)); err != nil {
			return nil, fmt.Errorf("render table: %w", err)
		}
	}
	if err := table.Render(); err != nil {
		return nil, fmt.Errorf("render table: %w", err)
	}
	lines := make([]string, 0, len(t.Rows)+1)
	for line := range strings.Lines(buf.String()) {
		// After a coloured cell the padding is reset once more.
		line = strings.TrimSuffix(strings.TrimRight(line, " \n"), " \x1b[0m")
		lines = append(lines, opts.Prefix+strings.TrimRight(line, " "))
	}
	return lines, nil
}

func (t Table) header(wide bool) []string {
	var cells []string
	for _, c := range t.Columns {
		if wide || !c.Wide {
			cells = append(cells, c.Name)
		}
	}
	return cells
}

func (t Table) row(row []string, opts TableOptions) []string {
	var cells []string
	for i, c := range t.Columns {
		if !opts.Wide && c.Wide {
			continue
		}
		cell := orElse(oneLine(row[i]), "-")
		cells = append(cells, paint(opts.Color, cellStyle(c.Name, cell), cell))
	}
	return cells
}

// cellStyle colours what is good and what needs a look.
func cellStyle(column, cell string) string {
	switch column {
	case "PHASE":
		switch cell {
		case "Provisioned", "Running":
			return styleGreen
		case "Failed", "Dirty":
			return styleRed
		case "Pending", "Provisioning", "Deleting":
			return styleYellow
		}
	case "TYPE":
		if cell == "Warning" {
			return styleYellow
		}
	}
	return ""
}
