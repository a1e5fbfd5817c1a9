package match

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// interruptEvery is after how many steps of a comprehension the timeout is looked at.
const interruptEvery = 16

// program is a compiled filter. It may be used by many goroutines at once.
type program struct {
	expr      string
	cel       cel.Program
	readsData bool
	// loops says that there are comprehensions, the only thing a timeout can stop.
	loops   bool
	timeout time.Duration
	onEval  func(expr string)
}

// compile checks and plans a filter that is not empty.
func (p *Programs) compile(expr string) (*program, error) {
	if p.onCompile != nil {
		p.onCompile(expr)
	}
	c, err := p.check(expr)
	if err != nil {
		return nil, err
	}
	g := newGuard(p.cfg.CostLimit)
	// Neither OptTrackState nor OptExhaustiveEval: they make releases of CEL ignore
	// the cost limit, and a filter must stop at its first answer.
	planned, err := p.env.Program(c.ast,
		cel.EvalOptions(cel.OptOptimize),
		cel.CostLimit(p.cfg.CostLimit),
		cel.CostTracking(g),
		cel.InterruptCheckFrequency(interruptEvery),
		cel.CustomDecoratorV2(g.decorate),
	)
	if err != nil {
		return nil, fmt.Errorf("plan filter: %w", err)
	}
	return &program{
		expr: expr, cel: planned, readsData: c.readsData, loops: c.loops,
		timeout: p.cfg.Timeout, onEval: p.onEval,
	}, nil
}

// eval asks the filter about the event and pays for it. The empty reason is a yes.
func (p *program) eval(vars *variables, b *Budget) (reason Reason, detail string) {
	defer func() {
		if r := recover(); r != nil {
			b.spend(vars.owed() + 1)
			reason, detail = ReasonFilterError, cut(fmt.Sprintf("panic: %v", r))
		}
	}()
	if p.onEval != nil {
		p.onEval(p.expr)
	}
	val, details, err := p.run(vars)
	spent := vars.owed() + 1 // an evaluation is never free
	if actual := details.ActualCost(); actual != nil {
		spent += *actual
	}
	b.spend(spent)
	switch {
	case err != nil:
		return ReasonFilterError, detailOf(err)
	case val == types.True:
		return "", ""
	case val == types.False:
		return ReasonFiltered, ""
	default:
		return ReasonFilterError, "not_bool: the filter did not evaluate to true or false"
	}
}

func (p *program) run(vars *variables) (ref.Val, *cel.EvalDetails, error) {
	if !p.loops {
		return p.cel.Eval(vars)
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	return p.cel.ContextEval(ctx, vars)
}

// detailOf says in a few words why a filter could not be evaluated.
func detailOf(err error) string {
	var cancelled interpreter.EvalCancelledError
	switch {
	case errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded:
		return "cost_limit: the filter costs too much for this event"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout: the filter takes too long for this event"
	default:
		return cut(err.Error())
	}
}

// cut shortens a text to maxDetail bytes of valid UTF-8.
func cut(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	return strings.ToValidUTF8(s, "")
}
