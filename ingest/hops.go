package ingest

import (
	"strconv"

	"github.com/gofiber/fiber/v2"

	"github.com/postrider/postrider/schemas"
)

// HeaderHops counts the gateways that an event has passed. Outgoing attempts
// carry one more than the event came with.
const HeaderHops = "Postrider-Hops"

func readHops(header string) (int, error) {
	if header == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(header, 10, 31)
	if err != nil {
		return 0, problem(fiber.StatusBadRequest, CodeMalformedHops, "%s must be a whole number", HeaderHops)
	}
	if n > schemas.MaxHops {
		return 0, problem(fiber.StatusLoopDetected, CodeLoop,
			"the event passed %d gateways, at most %d are allowed", n, schemas.MaxHops)
	}
	return int(n), nil
}
