SELECT * FROM (
SELECT
  "__row",
  sum("__value_units"::HUGEINT) OVER w0 AS "units__sum__1d"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 86400000000 PRECEDING AND 1 PRECEDING)
)
WHERE "__row" IS NOT NULL
