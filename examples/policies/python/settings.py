"""What the operator may set."""

import json
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Settings:
    # GPU seconds a tenant may use in a window; 0 is no quota.
    quota_s: float = 0
    quota_window_s: float = 3_600
    # Points a waiting job gains in a second; a class is 100 points.
    ageing_per_second: float = 1
    # The most a job waits for a better instance while another is free.
    max_extra_wait_ms: float = 15_000
    # A card this hot gets no new jobs until it is at `cool_c` again.
    hot_c: float = 83
    cool_c: float = 75
    # Taken for a load nothing is known about.
    assumed_load_ms: float = 8_500

    @classmethod
    def parse(cls, text):
        given = json.loads(text)
        known = [field.name for field in fields(cls)]
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"unknown setting {name}, known are {', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{name} must be a number")
        settings = cls(**given)
        settings.judge()
        return settings

    def judge(self):
        for name in ("quota_s", "ageing_per_second", "max_extra_wait_ms", "assumed_load_ms"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.quota_window_s < 1:
            raise ValueError("quota_window_s must be at least 1")
        if self.cool_c >= self.hot_c:
            raise ValueError("cool_c must be below hot_c")
