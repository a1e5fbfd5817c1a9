package match

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/ext"
)

const (
	// MaxFilter is the longest filter in bytes.
	MaxFilter = 2048

	maxNodes        = 4000
	maxRegexProgram = 1000
	maxDetail       = 256
)

// CheckFilter reports what is wrong with a filter, or nil; the empty filter is fine.
// A filter is a CEL expression of type bool, at most MaxFilter bytes, over the
// strings type, source, subject, id, datacontenttype, tenant and partitionkey, the
// timestamp time, the JSON value data, and the map ext of extension attributes. An
// unknown name is an error; so is a filter whose cost is known to be over the
// default limit.
//
// Offered are CEL's operators, the macros has, all, exists, exists_one and filter,
// the standard functions, and of the strings extension charAt, lowerAscii,
// upperAscii, reverse, split, substring and trim. Left out is what can be used to
// build values that grow, or that works before its cost is counted: map, join,
// replace, format, quote, indexOf. Regular expressions and time zones are literals.
func CheckFilter(expr string) error {
	p, err := NewPrograms(Config{})
	if err != nil {
		return err
	}
	return p.CheckFilter(expr)
}

// newEnv declares what a filter may use.
func newEnv() (*cel.Env, error) {
	return cel.NewEnv(
		cel.ClearMacros(),
		cel.Macros(cel.HasMacro, cel.AllMacro, cel.ExistsMacro, cel.ExistsOneMacro, cel.FilterMacro),
		cel.Variable("type", cel.StringType),
		cel.Variable("source", cel.StringType),
		cel.Variable("subject", cel.StringType),
		cel.Variable("id", cel.StringType),
		cel.Variable("time", cel.TimestampType),
		cel.Variable("datacontenttype", cel.StringType),
		cel.Variable("tenant", cel.StringType),
		cel.Variable("partitionkey", cel.StringType),
		cel.Variable("ext", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("data", cel.DynType),
		ext.Strings(ext.StringsVersion(5)),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(MaxFilter),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexProgram),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()),
	)
}

// checked is a filter that may be compiled, and what its text says about it.
type checked struct {
	ast       *cel.Ast
	readsData bool
	loops     bool
}

// check parses the filter and judges it by its text.
func (p *Programs) check(expr string) (*checked, error) {
	if len(expr) > MaxFilter {
		return nil, fmt.Errorf("filter is %d bytes long, at most %d are allowed", len(expr), MaxFilter)
	}
	if strings.TrimSpace(expr) == "" {
		if expr == "" {
			return &checked{}, nil
		}
		return nil, errors.New("filter is blank")
	}
	tree, issues := p.env.Compile(expr)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("filter does not compile: %w", err)
	}
	if !tree.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("filter is of type %s, it must be bool: compare the value with something",
			cel.FormatCELType(tree.OutputType()))
	}
	c := &checked{ast: tree}
	if err := c.walk(); err != nil {
		return nil, err
	}
	return c, p.checkCost(tree)
}

// walk notes what the expression uses and refuses what can't be bounded.
func (c *checked) walk() error {
	var errs []error
	ast.PostOrderVisit(c.ast.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			c.readsData = c.readsData || strings.TrimPrefix(e.AsIdent(), ".") == "data"
		case ast.ComprehensionKind:
			c.loops = true
		case ast.StructKind:
			errs = append(errs, fmt.Errorf("filter makes a value of type %s: that is not offered", e.AsStruct().TypeName()))
		case ast.CallKind:
			if err := checkCall(e.AsCall()); err != nil {
				errs = append(errs, err)
			}
		default:
		}
	}))
	return errors.Join(errs...)
}

// checkCall allows operators and the functions that CheckFilter names.
func checkCall(call ast.CallExpr) error {
	name := call.FunctionName()
	switch name {
	case "size", "contains", "startsWith", "endsWith",
		"bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint",
		"charAt", "lowerAscii", "upperAscii", "reverse", "split", "substring", "trim",
		"@in", "@not_strictly_false":
		return nil
	case "matches":
		if args := call.Args(); args[len(args)-1].Kind() != ast.LiteralKind {
			return errors.New("filter: the regular expression of matches() must be a literal")
		}
		return nil
	}
	if strings.HasPrefix(name, "get") {
		if args := call.Args(); len(args) == 1 && args[0].Kind() != ast.LiteralKind {
			return fmt.Errorf("filter: the time zone of %s() must be a literal", name)
		}
		return nil
	}
	if strings.Contains(name, "_") { // _+_, _?_:_, !_: no function has such a name
		return nil
	}
	return fmt.Errorf("filter: function %s() is not offered", name)
}

// checkCost refuses a filter that can't be evaluated within the limit, or, where its
// cost does not depend on data, that might not be.
func (p *Programs) checkCost(tree *cel.Ast) error {
	est, err := p.env.EstimateCost(tree, attributeSizes{})
	if err != nil {
		return fmt.Errorf("estimate cost of filter: %w", err)
	}
	worst := est.Max
	if worst == math.MaxUint64 { // depends on data: not known
		worst = est.Min
	}
	if worst > p.cfg.CostLimit {
		return fmt.Errorf("filter is too costly: up to %d units, at most %d are allowed", worst, p.cfg.CostLimit)
	}
	return nil
}

// attributeSizes tells the estimate of costs how large attributes usually are at
// most. It is for judging a filter's text; evaluation has its own limit.
type attributeSizes struct{}

var _ cost.Estimator = attributeSizes{}

// EstimateSize implements cost.Estimator.
func (attributeSizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	path := node.Path()
	if len(path) == 0 {
		return nil
	}
	switch path[0] {
	case "type", "id", "datacontenttype", "tenant", "partitionkey":
		return &cost.SizeEstimate{Max: 255}
	case "source", "subject":
		return &cost.SizeEstimate{Max: 1024}
	case "ext":
		if len(path) == 1 {
			return &cost.SizeEstimate{Max: 64}
		}
		return &cost.SizeEstimate{Max: 1024}
	default:
		return nil
	}
}

// EstimateCallCost implements cost.Estimator: CEL's own model is used.
func (attributeSizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}
