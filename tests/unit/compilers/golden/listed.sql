SELECT
  "__row",
  list_sum("__list0") AS "amount__sum__1h",
  list_avg("__list0") AS "amount__mean__1h",
  list_min("__list0") AS "amount__min__1h",
  list_sum("__list1") AS "units__sum__1h",
  list_avg("__list2") AS "units__mean__1h",
  list_min("__list3") AS "units__min__1h",
  list_sum("__list4") AS "price__sum__1h",
  list_avg("__list5") AS "price__mean__1h",
  list_min("__list6") AS "price__min__1h",
  list_sum("__list7") AS "ok__sum__1h",
  list_avg("__list8") AS "ok__mean__1h",
  list_min("__list9") AS "ok__min__1h"
FROM (
SELECT
  "__row",
  list("__value_amount") FILTER ("__value_amount" IS NOT NULL) OVER w0 AS "__list0",
  list("__value_units"::HUGEINT) FILTER ("__value_units" IS NOT NULL) OVER w0 AS "__list1",
  list("__value_units"::DOUBLE) FILTER ("__value_units" IS NOT NULL) OVER w0 AS "__list2",
  list("__value_units") FILTER ("__value_units" IS NOT NULL) OVER w0 AS "__list3",
  list("__value_price"::DECIMAL(38, 2)) FILTER ("__value_price" IS NOT NULL) OVER w0 AS "__list4",
  list("__value_price"::DOUBLE) FILTER ("__value_price" IS NOT NULL) OVER w0 AS "__list5",
  list("__value_price") FILTER ("__value_price" IS NOT NULL) OVER w0 AS "__list6",
  list("__value_ok"::HUGEINT) FILTER ("__value_ok" IS NOT NULL) OVER w0 AS "__list7",
  list("__value_ok"::DOUBLE) FILTER ("__value_ok" IS NOT NULL) OVER w0 AS "__list8",
  list("__value_ok") FILTER ("__value_ok" IS NOT NULL) OVER w0 AS "__list9"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 3600000000 PRECEDING AND 0 PRECEDING)
)
WHERE "__row" IS NOT NULL
