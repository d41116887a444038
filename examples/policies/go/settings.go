package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Settings are what the operator may set.
type Settings struct {
	// GPU seconds a tenant may use in a window; 0 is no quota.
	QuotaS       float64 `json:"quota_s"`
	QuotaWindowS float64 `json:"quota_window_s"`
	// Points a waiting job gains in a second; a class is 100 points.
	AgeingPerSecond float64 `json:"ageing_per_second"`
	// The most a job waits for a better instance while another is free.
	MaxExtraWaitMs float64 `json:"max_extra_wait_ms"`
	// A card this hot gets no new jobs until it is at cool_c again.
	HotC  float64 `json:"hot_c"`
	CoolC float64 `json:"cool_c"`
	// Taken for a load nothing is known about.
	AssumedLoadMs float64 `json:"assumed_load_ms"`
}

func defaults() Settings {
	return Settings{
		QuotaWindowS:    3_600,
		AgeingPerSecond: 1,
		MaxExtraWaitMs:  15_000,
		HotC:            83,
		CoolC:           75,
		AssumedLoadMs:   8_500,
	}
}

func parse(text string) (Settings, error) {
	settings := defaults()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&settings); err != nil {
		return settings, err
	}
	return settings, settings.judge()
}

func (s *Settings) judge() error {
	names := []string{"quota_s", "ageing_per_second", "max_extra_wait_ms", "assumed_load_ms"}
	for n, value := range []float64{s.QuotaS, s.AgeingPerSecond, s.MaxExtraWaitMs, s.AssumedLoadMs} {
		if value < 0 {
			return fmt.Errorf("%s must not be negative", names[n])
		}
	}
	if s.QuotaWindowS < 1 {
		return errors.New("quota_window_s must be at least 1")
	}
	if s.CoolC >= s.HotC {
		return errors.New("cool_c must be below hot_c")
	}
	return nil
}
