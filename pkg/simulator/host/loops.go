package host

import (
	"strconv"

	"mvdan.cc/sh/v3/syntax"
)

// repairLoops has `break` and `continue` leave what they are in at once. The
// interpreter sees them only when the statement of the loop's body that they are in has
// ended: behind a `continue` in an `if` or `case`, the rest of the branch would run.
//
// Before each of them a variable of the loop is set, and such a rest runs only while it
// is not.
func repairLoops(file *syntax.File) {
	r := &loopRepair{}
	r.list(file.Stmts, nil, true)
}

type loopRepair struct{ count int }

// loop is a loop around what is looked at.
type loop struct {
	variable string
	needed   bool // something asks for the variable
}

// list repairs a list of statements, and returns it with how many loops it may leave.
// body says that it is what the innermost loop watches itself.
func (r *loopRepair) list(stmts []*syntax.Stmt, loops []*loop, body bool) (out []*syntax.Stmt, leaves int) {
	for i, st := range stmts {
		n := r.stmt(st, loops)
		leaves = max(leaves, n)
		if n == 0 || body || i == len(stmts)-1 {
			continue
		}
		l := loops[len(loops)-1]
		l.needed = true
		rest, more := r.list(stmts[i+1:], loops, false)
		skip := &syntax.IfClause{
			Cond: []*syntax.Stmt{{Cmd: &syntax.CallExpr{Args: []*syntax.Word{
				literal("["), literal("-n"), {Parts: []syntax.WordPart{&syntax.DblQuoted{Parts: []syntax.WordPart{variable(l.variable)}}}}, literal("]"),
			}}}},
			Then: []*syntax.Stmt{{Cmd: &syntax.CallExpr{Args: []*syntax.Word{literal("true")}}}},
			Else: &syntax.IfClause{Then: rest},
		}
		return append(stmts[:i+1:i+1], &syntax.Stmt{Cmd: skip}), max(leaves, more)
	}
	return stmts, leaves
}

// stmt repairs a statement and returns how many of its loops it may leave.
func (r *loopRepair) stmt(st *syntax.Stmt, loops []*loop) (leaves int) {
	if st == nil {
		return 0
	}
	switch cmd := st.Cmd.(type) {
	case *syntax.CallExpr:
		return r.call(st, cmd, loops)
	case *syntax.BinaryCmd:
		if cmd.Op == syntax.Pipe || cmd.Op == syntax.PipeAll { // each side is a process of its own
			r.stmt(cmd.X, nil)
			r.stmt(cmd.Y, nil)
			return 0
		}
		return max(r.stmt(cmd.X, loops), r.stmt(cmd.Y, loops))
	case *syntax.Block:
		cmd.Stmts, leaves = r.list(cmd.Stmts, loops, false)
	case *syntax.Subshell:
		cmd.Stmts, _ = r.list(cmd.Stmts, nil, false)
	case *syntax.FuncDecl:
		r.stmt(cmd.Body, nil)
	case *syntax.IfClause:
		for c := cmd; c != nil; c = c.Else {
			var inCond, inThen int
			c.Cond, inCond = r.list(c.Cond, loops, false)
			c.Then, inThen = r.list(c.Then, loops, false)
			leaves = max(leaves, inCond, inThen)
		}
	case *syntax.CaseClause:
		for _, item := range cmd.Items {
			var n int
			item.Stmts, n = r.list(item.Stmts, loops, false)
			leaves = max(leaves, n)
		}
	case *syntax.WhileClause:
		cmd.Do, leaves = r.loop(cmd.Do, loops)
	case *syntax.ForClause:
		cmd.Do, leaves = r.loop(cmd.Do, loops)
	case *syntax.TimeClause:
		leaves = r.stmt(cmd.Stmt, loops)
	}
	return leaves
}

// loop repairs the body of a loop.
func (r *loopRepair) loop(do []*syntax.Stmt, loops []*loop) (out []*syntax.Stmt, leaves int) {
	r.count++
	l := &loop{variable: varLeft + strconv.Itoa(r.count)}
	do, leaves = r.list(do, append(loops[:len(loops):len(loops)], l), true)
	if l.needed {
		do = append([]*syntax.Stmt{assign(l.variable, "")}, do...)
	}
	return do, max(leaves-1, 0)
}

// call has `break` and `continue` note that they were here.
func (r *loopRepair) call(st *syntax.Stmt, call *syntax.CallExpr, loops []*loop) int {
	if len(call.Args) == 0 || len(loops) == 0 {
		return 0
	}
	if name := call.Args[0].Lit(); name != "break" && name != "continue" {
		return 0
	}
	levels := 1
	if len(call.Args) > 1 {
		if n, err := strconv.Atoi(call.Args[1].Lit()); err == nil {
			levels = n
		}
	}
	levels = min(max(levels, 1), len(loops))
	block := &syntax.Block{}
	for _, l := range loops[len(loops)-levels:] {
		block.Stmts = append(block.Stmts, assign(l.variable, "left"))
	}
	block.Stmts = append(block.Stmts, &syntax.Stmt{Cmd: call})
	st.Cmd = block
	return levels
}

func variable(name string) *syntax.ParamExp {
	return &syntax.ParamExp{Param: &syntax.Lit{Value: name}}
}

// assign is the statement NAME=VALUE.
func assign(name, value string) *syntax.Stmt {
	return &syntax.Stmt{Cmd: &syntax.CallExpr{Assigns: []*syntax.Assign{{Name: &syntax.Lit{Value: name}, Value: literal(value)}}}}
}
