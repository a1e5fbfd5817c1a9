package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"

	"github.com/postrider/postrider/internal/httpd"
)

const schemaPrefix = "#/components/schemas/"

// newAPI returns huma on the router, with our problems for its errors. Its own
// routes for documents are off: they are filled in at the first request, without
// a lock.
func (s *Server) newAPI(router fiber.Router) huma.API {
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Postrider", Version: s.cfg.Version,
				Description: "Management of tenants, endpoints, subscriptions and keys. Errors are RFC 9457 problems.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", Description: "The admin key, or the token of an API key with the role admin."},
				},
			},
			Security: []map[string][]string{{"bearer": {}}},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{transform},
	}
	// The app is only needed by huma's ServeHTTP, which nothing calls.
	api := humafiber.NewWithGroup(nil, router, config)
	api.UseMiddleware(s.admit)
	return api
}

// transform turns whatever is an error into a problem.
func transform(ctx huma.Context, _ string, v any) (any, error) {
	c := humafiber.Unwrap(ctx)
	switch v := v.(type) {
	case *failure:
		return answered(c, v.problem()), nil
	case *huma.ErrorModel:
		check, _ := ctx.Operation().Metadata[checkKey].(bodyCheck)
		return answered(c, problemOf(v, bodyOf(c), check)), nil
	}
	return v, nil
}

func answered(c *fiber.Ctx, p httpd.Problem) *httpd.Problem {
	p = p.Complete()
	p.RequestID = httpd.RequestID(c)
	return &p
}

// copied is a request whose texts are copies: fasthttp reuses its buffers after
// the handler, and what a handler reads here goes to Kafka, caches and logs.
type copied struct{ humaContext }

// humaContext gives the embedded field a name that is no method.
type humaContext huma.Context

func (c copied) Unwrap() huma.Context      { return c.humaContext }
func (c copied) Query(name string) string  { return strings.Clone(c.humaContext.Query(name)) }
func (c copied) Header(name string) string { return strings.Clone(c.humaContext.Header(name)) }

// Param returns a parameter of the path, percent-decoded.
func (c copied) Param(name string) string {
	raw := strings.Clone(c.humaContext.Param(name))
	if text, err := url.PathUnescape(raw); err == nil {
		return text
	}
	return raw
}

func (c copied) BodyReader() io.Reader {
	return bytes.NewReader(bodyOf(humafiber.Unwrap(c.humaContext)))
}

func (c copied) URL() url.URL {
	u := humafiber.Unwrap(c.humaContext).Request().URI()
	return url.URL{Path: string(u.Path()), RawQuery: string(u.QueryString())}
}

// operation describes one operation of the API.
type operation struct {
	method, path, id, summary, description string
	status                                 int
	access                                 access
	tag                                    string
	check                                  bodyCheck
}

// checkKey is the key of an operation's bodyCheck in its metadata.
const checkKey = "check"

// handle registers an operation whose errors are failures. The deadline is the
// handler's; what outlasts a request does not take its context.
func handle[I, O any](s *Server, api huma.API, op operation, fn func(context.Context, *I) (*O, error)) {
	problem := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[httpd.Problem](), true, "Problem")
	h := huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, DefaultStatus: op.status,
		Summary: op.summary, Description: op.description, Tags: []string{op.tag},
		MaxBodyBytes:    MaxBody + 1, // huma refuses a body that reaches the bound
		BodyReadTimeout: -1,          // fasthttp has read it
		Metadata:        map[string]any{accessKey: op.access, checkKey: op.check},
		Responses: map[string]*huma.Response{
			"default": {
				Description: "A problem (RFC 9457)",
				Content:     map[string]*huma.MediaType{httpd.ContentTypeProblem: {Schema: problem}},
			},
		},
	}
	if op.access == anyone {
		h.Security = []map[string][]string{{}}
	}
	huma.Register(api, h, func(ctx context.Context, in *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		out, err := fn(ctx, in)
		if err != nil {
			f := failureOf(err)
			s.logFailure(ctx, op.id, f)
			return nil, f
		}
		return out, nil
	})
}

// serveDocument mounts the finished OpenAPI document.
func serveDocument(router fiber.Router, api huma.API) error {
	schemas := api.OpenAPI().Components.Schemas.Map()
	// huma enters its own error type, which no operation answers.
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	doc, err := json.MarshalIndent(api.OpenAPI(), "", "  ")
	if err != nil {
		return fmt.Errorf("write the OpenAPI document: %w", err)
	}
	router.Add(http.MethodGet, "/openapi.json", func(c *fiber.Ctx) error {
		c.Set(fiber.HeaderContentType, "application/openapi+json")
		return c.Send(doc)
	})
	return nil
}
