-- A study database of version 3, as `sqlite3 studies.db .dump` writes it: made by dlcore 0.1.0 with Optuna 5.0.0.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE dlcore_cohorts (
            study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
            cohort INTEGER NOT NULL, first_number INTEGER NOT NULL, n_trials INTEGER NOT NULL,
            claimed_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (study_id, cohort));
INSERT INTO "dlcore_cohorts" VALUES(1,0,0,3,1795474210.73238);
INSERT INTO "dlcore_cohorts" VALUES(1,1,3,2,1.79547421077118301386e+09);
CREATE TABLE dlcore_curves (
            trial_id INTEGER NOT NULL REFERENCES trials (trial_id) ON DELETE CASCADE, epoch INTEGER NOT NULL,
            train_loss DOUBLE PRECISION, val_loss DOUBLE PRECISION, val_metric DOUBLE PRECISION,
            learning_rate DOUBLE PRECISION NOT NULL, finished_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (trial_id, epoch));
INSERT INTO "dlcore_curves" VALUES(1,1,1.0,0.5,0.8,0.05,1700000001.0);
INSERT INTO "dlcore_curves" VALUES(1,2,0.5,0.25,0.85,0.05,1700000002.0);
INSERT INTO "dlcore_curves" VALUES(2,1,1.0,0.5,0.8,0.05,1700000001.0);
INSERT INTO "dlcore_curves" VALUES(2,2,0.5,0.25,0.85,0.05,1700000002.0);
CREATE TABLE dlcore_leases (
            token TEXT PRIMARY KEY, study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
            cohort INTEGER NOT NULL, machine TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
            process_started TEXT NOT NULL, claimer TEXT NOT NULL, claimed_at DOUBLE PRECISION NOT NULL,
            expires_at DOUBLE PRECISION NOT NULL, UNIQUE (study_id, cohort));
CREATE TABLE dlcore_migrations (version INTEGER PRIMARY KEY, applied_at DOUBLE PRECISION NOT NULL);
INSERT INTO "dlcore_migrations" VALUES(1,1.79547421064079403872e+09);
INSERT INTO "dlcore_migrations" VALUES(2,1.79548829618904805184e+09);
INSERT INTO "dlcore_migrations" VALUES(3,1.79548829619002079964e+09);
CREATE TABLE dlcore_results (
            trial_id INTEGER PRIMARY KEY REFERENCES trials (trial_id) ON DELETE CASCADE,
            cohort INTEGER NOT NULL, hyperparameters_json TEXT NOT NULL, n_parameters BIGINT NOT NULL,
            reason TEXT, best_epoch INTEGER, best_val_loss DOUBLE PRECISION,
            started_at DOUBLE PRECISION, finished_at DOUBLE PRECISION,
            duration_s DOUBLE PRECISION, samples_per_s DOUBLE PRECISION, engine TEXT, population_size INTEGER,
            device TEXT, peak_memory_bytes BIGINT, searched_json TEXT, token TEXT, sha256 TEXT);
INSERT INTO "dlcore_results" VALUES(1,0,'{"depth": 1, "width": 8, "activation": "tanh", "learning_rate": 0.03333333333333333, "momentum": 0.9, "dropout": 0.0}',99,NULL,2,0.25,1700000000.0,1700000002.0,2.0,1000.0,'loop',1,'a processor',1048576,NULL,NULL,'0fe91eb615c433c845ad3dfb87d34cacb858e990130b37b4aae27251db07d271');
INSERT INTO "dlcore_results" VALUES(2,0,'{"depth": 1, "width": 9, "activation": "tanh", "learning_rate": 0.06666666666666667, "momentum": 0.9, "dropout": 0.0}',100,'not among the best 2 of 3 at epoch 1',2,0.25,1700000000.0,1700000002.0,2.0,1000.0,'loop',1,'a processor',1048576,NULL,NULL,'817c11adb500ef339911fc43766b1629549aa666f2cd66d96951c2f3ba1fb2ef');
INSERT INTO "dlcore_results" VALUES(3,0,'{"depth": 1, "width": 10, "activation": "tanh", "learning_rate": 0.10000000000000002, "momentum": 0.9, "dropout": 0.0}',101,'diverged in epoch 1: loss nan',NULL,NULL,1700000000.0,1700000002.0,2.0,1000.0,'loop',1,'a processor',1048576,NULL,NULL,'9c9f8dbd01f3084a637d3ae8e61542016415cd92b2479988a7a00bc3fc8bcdae');
INSERT INTO "dlcore_results" VALUES(4,1,'{"depth": 1, "width": 11, "activation": "tanh", "learning_rate": 0.13333333333333333, "momentum": 0.9, "dropout": 0.0}',102,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "dlcore_results" VALUES(5,1,'{"depth": 1, "width": 12, "activation": "tanh", "learning_rate": 0.16666666666666666, "momentum": 0.9, "dropout": 0.0}',103,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE dlcore_studies (
            study_id INTEGER PRIMARY KEY REFERENCES studies (study_id) ON DELETE CASCADE,
            uuid TEXT NOT NULL UNIQUE, created_at DOUBLE PRECISION NOT NULL, spec_json TEXT NOT NULL,
            objectives_json TEXT NOT NULL, task TEXT NOT NULL, curve_metric TEXT NOT NULL,
            cohort_size INTEGER NOT NULL, n_features INTEGER NOT NULL, n_outputs INTEGER NOT NULL,
            data_name TEXT NOT NULL, data_fingerprint TEXT NOT NULL, environment_json TEXT NOT NULL,
            spent_s DOUBLE PRECISION NOT NULL, tracking_uri TEXT, experiment_id TEXT, sha256 TEXT);
INSERT INTO "dlcore_studies" VALUES(1,'0123456789abcdef0123456789abcdef',1700000000.0,'{"study": "wine", "budget": {"trials": 6}}','[{"metric": "accuracy", "direction": "maximize"}]','multiclass','accuracy',3,13,3,'wine','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','{"torch": "2.13.0"}',7.5,'http://127.0.0.1:5000','1','fc0390f5f505bd8dc78208d9a46c86107c41c87d52ead1edf0b736ede56350ef');
CREATE TABLE dlcore_winners (
            study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
            trial_id INTEGER NOT NULL REFERENCES trials (trial_id) ON DELETE CASCADE,
            created_at DOUBLE PRECISION NOT NULL, n_finished INTEGER NOT NULL, val_metrics_json TEXT NOT NULL,
            test_metrics_json TEXT NOT NULL, export_dir TEXT NOT NULL, onnx_sha256 TEXT NOT NULL, sha256 TEXT,
            PRIMARY KEY (study_id, trial_id));
INSERT INTO "dlcore_winners" VALUES(1,1,1.79547421084769892691e+09,3,'{"accuracy": 0.3}','{"accuracy": 0.25}','exports/wine','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','d0c1c02d5acecf0e828d2bf8f9e217613bf509bcc42805efc35ed32b831959b4');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'wine');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,1,0.25,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,2,1,3.33333333333333314829e-01,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'width',8.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 4, "high": 64}}');
INSERT INTO "trial_params" VALUES(2,1,'activation',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(3,1,'learning_rate',3.33333333333333328707e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 1.0, "log": true}}');
INSERT INTO "trial_params" VALUES(4,2,'width',9.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 4, "high": 64}}');
INSERT INTO "trial_params" VALUES(5,2,'activation',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(6,2,'learning_rate',6.66666666666666657414e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 1.0, "log": true}}');
INSERT INTO "trial_params" VALUES(7,3,'width',10.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 4, "high": 64}}');
INSERT INTO "trial_params" VALUES(8,3,'activation',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(9,3,'learning_rate',1.00000000000000019428e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 1.0, "log": true}}');
INSERT INTO "trial_params" VALUES(10,4,'width',11.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 4, "high": 64}}');
INSERT INTO "trial_params" VALUES(11,4,'activation',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(12,4,'learning_rate',1.33333333333333331482e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 1.0, "log": true}}');
INSERT INTO "trial_params" VALUES(13,5,'width',12.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 4, "high": 64}}');
INSERT INTO "trial_params" VALUES(14,5,'activation',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(15,5,'learning_rate',1.66666666666666657414e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 1.0, "log": true}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,2,'note','[1, 2]');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'n_parameters','99');
INSERT INTO "trial_user_attributes" VALUES(2,1,'epochs','2');
INSERT INTO "trial_user_attributes" VALUES(3,1,'cohort','0');
INSERT INTO "trial_user_attributes" VALUES(4,1,'best_epoch','2');
INSERT INTO "trial_user_attributes" VALUES(5,2,'n_parameters','100');
INSERT INTO "trial_user_attributes" VALUES(6,2,'epochs','2');
INSERT INTO "trial_user_attributes" VALUES(7,2,'cohort','0');
INSERT INTO "trial_user_attributes" VALUES(8,2,'best_epoch','2');
INSERT INTO "trial_user_attributes" VALUES(9,2,'reason','"not among the best 2 of 3 at epoch 1"');
INSERT INTO "trial_user_attributes" VALUES(10,3,'n_parameters','101');
INSERT INTO "trial_user_attributes" VALUES(11,3,'epochs','0');
INSERT INTO "trial_user_attributes" VALUES(12,3,'cohort','0');
INSERT INTO "trial_user_attributes" VALUES(13,3,'reason','"diverged in epoch 1: loss nan"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,3.00000000000000044408e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,3.33333333333333314829e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-23 22:50:10.732380','2026-11-23 22:50:10.799975');
INSERT INTO "trials" VALUES(2,1,1,'PRUNED','2026-11-23 22:50:10.732380','2026-11-23 22:50:10.800746');
INSERT INTO "trials" VALUES(3,2,1,'FAIL','2026-11-23 22:50:10.732380','2026-11-23 22:50:10.801010');
INSERT INTO "trials" VALUES(4,3,1,'RUNNING','2026-11-23 22:50:10.771183',NULL);
INSERT INTO "trials" VALUES(5,4,1,'RUNNING','2026-11-23 22:50:10.771183',NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
CREATE VIEW dlcore_trials AS SELECT
        s.study_name AS study, t.number AS number, t.state AS state,
        CASE CAST(v.value_type AS TEXT) WHEN 'INF_POS' THEN 9e999 WHEN 'INF_NEG' THEN -9e999
            ELSE v.value END AS value,
        r.n_parameters AS n_parameters, r.duration_s AS seconds, json_extract(r.hyperparameters_json, '$.depth') AS depth, json_extract(r.hyperparameters_json, '$.width') AS width, json_extract(r.hyperparameters_json, '$.activation') AS activation, json_extract(r.hyperparameters_json, '$.learning_rate') AS learning_rate, json_extract(r.hyperparameters_json, '$.momentum') AS momentum, json_extract(r.hyperparameters_json, '$.initialization') AS initialization,
        json_remove(r.hyperparameters_json, '$.depth', '$.width', '$.activation', '$.learning_rate', '$.momentum', '$.initialization') AS other_hyperparameters, r.cohort AS cohort, r.best_epoch AS best_epoch, r.reason AS reason
        FROM trials t JOIN studies s ON s.study_id = t.study_id JOIN dlcore_results r ON r.trial_id = t.trial_id
        LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0;
COMMIT;
