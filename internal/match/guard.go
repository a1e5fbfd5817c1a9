package match

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

const (
	// stepsPerCost is how many steps of a regular expression are one unit of cost.
	stepsPerCost = 10
	// entryNodes is what an entry of a map counts in a comparison, besides its value.
	entryNodes = 9
	// zoneCost is what loading a time zone costs.
	zoneCost = 500
)

// guard closes the gaps in CEL's own accounting, which counts a call after it was
// made and knows only the outer size of lists and maps: comparing two large documents
// or a large regular expression on a large text is one cheap call. It looks at the
// arguments first and refuses, and counts what such calls really cost. One guard
// belongs to one program and is read-only once that is planned.
type guard struct {
	limit uint64
	regex map[string]uint64 // pattern → instructions of its program
}

var _ cost.ActualCostEstimator = (*guard)(nil)

func newGuard(limit uint64) *guard {
	return &guard{limit: limit, regex: make(map[string]uint64)}
}

// sealed hides a guarded call from CEL's later optimisations, which would replace it.
type sealed struct{ interpreter.InterpretableV2 }

// decorate replaces the calls that need a look at their arguments.
func (g *guard) decorate(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok {
		return i, nil
	}
	switch call.Function() {
	case operators.Equals:
		return g.replace(call, func(args ...ref.Val) ref.Val { return types.Equal(args[0], args[1]) }), nil
	case operators.NotEquals:
		return g.replace(call, func(args ...ref.Val) ref.Val {
			return types.Bool(types.Equal(args[0], args[1]) != types.True)
		}), nil
	case operators.In: // not sealed: a list of literals becomes a hash set
		return g.replace(call, func(args ...ref.Val) ref.Val {
			container, ok := args[1].(traits.Container)
			if !ok {
				return types.NoSuchOverloadErr()
			}
			return container.Contains(args[0])
		}), nil
	case overloads.Matches:
		return g.regexCall(call)
	default:
		return i, nil
	}
}

// replace returns the call with fn in its place, made only if its cost is in bounds.
func (g *guard) replace(call interpreter.InterpretableCall, fn func(...ref.Val) ref.Val) interpreter.InterpretableCall {
	function := call.Function()
	return interpreter.NewCall(call.ID(), function, call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
		if g.compareCost(function, args) > g.limit {
			return types.NewErr("cost_limit: the values to compare are too large")
		}
		return fn(args...)
	})
}

// regexCall compiles the literal expression once.
func (g *guard) regexCall(call interpreter.InterpretableCall) (interpreter.InterpretableV2, error) {
	literal, ok := call.Args()[1].(interpreter.InterpretableConst)
	if !ok {
		return nil, errors.New("the regular expression of matches() must be a literal")
	}
	pattern, ok := literal.Value().(types.String)
	if !ok {
		return nil, errors.New("the regular expression of matches() must be a string")
	}
	re, err := regexp.Compile(string(pattern))
	if err != nil {
		return nil, fmt.Errorf("compile regular expression: %w", err)
	}
	size, err := types.RegexProgramSize(string(pattern))
	if err != nil {
		return nil, fmt.Errorf("measure regular expression: %w", err)
	}
	g.regex[string(pattern)] = uint64(size) //nolint:gosec // a length
	guarded := interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
		text, ok := args[0].(types.String)
		if !ok {
			return types.MaybeNoSuchOverloadErr(args[0])
		}
		if g.matchCost(args) > g.limit {
			return types.NewErr("cost_limit: the text is too large for this regular expression")
		}
		return types.Bool(re.MatchString(string(text)))
	})
	return sealed{guarded}, nil
}

// CallCost implements cost.ActualCostEstimator. It returns nil where CEL's own model
// is right.
func (g *guard) CallCost(function, overloadID string, args []ref.Val, _ ref.Val) *uint64 {
	var units uint64
	switch function {
	case operators.Equals, operators.NotEquals, operators.In:
		if len(args) != 2 {
			return nil
		}
		units = g.compareCost(function, args)
	case overloads.Matches:
		if len(args) != 2 {
			return nil
		}
		units = g.matchCost(args)
	case overloads.TypeConvertBytes, overloads.TypeConvertDouble, overloads.TypeConvertDuration,
		overloads.TypeConvertInt, overloads.TypeConvertString, overloads.TypeConvertTimestamp,
		overloads.TypeConvertUint:
		units = textCost(args)
	default:
		switch {
		case overloadID == "":
			// The types are known only now (data is dynamic), and CEL's model,
			// which goes by overload, takes the call for free.
			units = textCost(args)
		case len(args) == 2 && strings.HasSuffix(overloadID, "_tz"):
			units = zoneCost
		}
	}
	if units == 0 {
		return nil
	}
	units++
	return &units
}

// compareCost is the number of values that a comparison may look at, counted up to
// just over the limit; 0 for scalars, whose cost CEL knows. Equality ends with the
// smaller side, a search looks at the whole list, a look-up in a map is one step.
func (g *guard) compareCost(function string, args []ref.Val) uint64 {
	if function == operators.In {
		list, isList := args[1].(traits.Lister)
		switch {
		case !isList:
			return 0
		case isAggregate(args[0]):
			return nodes(args[1], g.limit+1)
		}
		size, _ := list.Size().(types.Int)
		return uint64(max(size, 0))
	}
	if !isAggregate(args[0]) || !isAggregate(args[1]) {
		return 0
	}
	first := nodes(args[0], g.limit+1)
	return min(first, nodes(args[1], first))
}

func isAggregate(v ref.Val) bool {
	switch v.(type) {
	case traits.Lister, traits.Mapper:
		return true
	default:
		return false
	}
}

// nodes counts the values in v, itself included, and stops near the bound. An entry
// of a map counts more: comparing it is a look-up (measured: about ten times as long).
func nodes(v ref.Val, bound uint64) uint64 {
	count := uint64(1)
	switch v := v.(type) {
	case traits.Lister:
		for it := v.Iterator(); count < bound && it.HasNext() == types.True; {
			count += nodes(it.Next(), bound-count)
		}
	case traits.Mapper:
		for it := v.Iterator(); count < bound && it.HasNext() == types.True; {
			value, _ := v.Find(it.Next())
			count += entryNodes + nodes(value, bound-count)
		}
	}
	return count
}

// matchCost is the worst case of a regular expression: text × program.
func (g *guard) matchCost(args []ref.Val) uint64 {
	text, _ := args[0].(types.String)
	pattern, _ := args[1].(types.String)
	return uint64(len(text)) * g.regex[string(pattern)] / stepsPerCost
}

// textCost is the cost of reading the texts and bytes among the arguments once.
func textCost(args []ref.Val) (units uint64) {
	for _, arg := range args {
		switch v := arg.(type) {
		case types.String:
			units += uint64(len(v)) / stepsPerCost
		case types.Bytes:
			units += uint64(len(v)) / stepsPerCost
		}
	}
	return units
}
